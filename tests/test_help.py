"""`--help` and a mistake on the command line are answered before anything that takes time is imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = re.findall(r"^\| `python ([\w/]+)\.py", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
COMMANDS = [name.replace("/", ".") for name in COMMANDS] + ["ms_vireid", "ms_vireid train"]
KINDS = ("gradcam", "ranking", "similarity", "embedding", "features", "curves")
COMMANDS += [f"ms_vireid.visualize {kind}" for kind in KINDS]
SLOW = ("mindspore", "torch", "numba", "numpy", "scipy", "pydantic", "yaml", "PIL", "matplotlib", "jinja2", "sklearn")
SLOW += ("onnx", "onnxruntime", "faiss", "pymilvus", "tqdm")
# Runs commands in turn, with --help or a mistake, and says what the first that is slow has imported.
SCRIPT = """
import contextlib, io, runpy, sys
slow, option, *commands = sys.argv[1:]
for command in commands:
    module, *rest = command.split()
    sys.argv = [module, *rest, option]
    printed = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        runpy.run_module(module, run_name="__main__")
    assert ("usage:" if option == "--help" else "error:") in printed.getvalue(), (command, printed.getvalue())
    if found := sorted(sys.modules.keys() & set(slow.split())):
        sys.exit(f"{command} {option}: {' '.join(found)}")
"""


@pytest.mark.parametrize("option", ["--help", "--no-such-option"])
def test_a_command_line_is_answered_before_the_work_is_imported(option):
    assert {"ms_vireid.train", "torch_ref.train"} <= set(COMMANDS)
    given = [sys.executable, "-c", SCRIPT, " ".join(SLOW), option, *COMMANDS]
    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
