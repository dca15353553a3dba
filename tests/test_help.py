"""`--help` and a mistake on the command line are answered before anything that takes time is imported."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ms_vireid.command.numbers import NUMBERS
from ms_vireid.command.running import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\| `python ([\w/]+)\.py", PAGE, re.MULTILINE)
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
NUMBERED = {  # where a number's command is none of `COMMANDS`
    "benchmark": "parity.benchmark",
    "parity": "parity.report",
    "recipe": "ms_vireid.train",
    "stand-in": "parity.stand_in",
    "torch_ref": "torch_ref.train",
}
KIND_OF = {"--queries": "ranking", "--pairs": "similarity", "--seed": "similarity"}  # visualize's; else embedding
TRIED = ("0", "-1", "1000000000", "1" + "0" * 30, "nan", "1e400", "-1e400", "", "٣", "1_0", "9" * 10**6, "x" * 10**6)
# Gives every number to its command, with a mistake after it, and prints what was said.
NUMBERS_SCRIPT = """
import contextlib, io, json, runpy, sys
slow, *given = json.load(sys.stdin)
for command, option, value in given:
    module, *rest = command.split()
    sys.argv = [module, *rest, f"{option}={value}", "--no-such-option"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert ended.code == 2
    print(said.getvalue().strip())
assert not sys.modules.keys() & set(slow)
"""


@pytest.mark.parametrize("option", ["--help", "--no-such-option"])
def test_a_command_line_is_answered_before_the_work_is_imported(option):
    assert {"ms_vireid.train", "torch_ref.train"} <= set(COMMANDS)
    given = [sys.executable, "-c", SCRIPT, " ".join(SLOW), option, *COMMANDS]
    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


NEEDED = {
    "extract": "--checkpoint, --images, --output",
    "retrieve": "--gallery",
    "export": "--format, --checkpoint",
    "evaluate": "--checkpoint",
    "report": "RUN",
    "visualize": "KIND",
    "visualize gradcam": "--checkpoint, --images, --output",
}


@pytest.mark.parametrize(("words", "needed"), NEEDED.items())
def test_what_a_command_cannot_do_without_is_named(monkeypatch, capsys, words, needed):
    module, *rest = words.split()
    monkeypatch.setattr("sys.argv", [module, *rest])
    with pytest.raises(SystemExit) as stopped:
        run(importlib.import_module(f"ms_vireid.{module}").main)
    said = f"error: the following arguments are required: {needed}; see --help"
    assert (stopped.value.code, capsys.readouterr().err.strip()) == (2, said)


def test_every_number_is_refused_beyond_its_bounds_before_the_work_is_imported():
    given = [(*command_of(name), value) for name in NUMBERS for value in TRIED]
    done = subprocess.run(
        [sys.executable, "-c", NUMBERS_SCRIPT],
        cwd=ROOT,
        input=json.dumps([SLOW, *given]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == ""
    said = done.stdout.splitlines()
    assert len(said) == len(given)
    for name, lines in zip(NUMBERS, zip(*[iter(said)] * len(TRIED), strict=True), strict=True):
        _, option = command_of(name)
        for value, line in zip(TRIED, lines, strict=True):
            fits = value in ("0", "-1", "1000000000") and NUMBERS[name].least <= int(value) <= NUMBERS[name].most
            assert line.startswith("error: ")
            assert line.startswith(f"error: {option} ") != fits, (name, value, line)
            assert len(line) <= 300


def command_of(name):
    command, option = name.split()
    if command == "visualize":
        return f"ms_vireid.visualize {KIND_OF.get(option, 'embedding')}", option
    return NUMBERED.get(command, f"ms_vireid.{command}"), option


def test_no_option_takes_a_number_without_bounds():
    found = subprocess.run(
        ["git", "grep", "-nE", r"type=(int|float)\b", "--", "ms_vireid", "parity", "torch_ref"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in found.stdout.splitlines() if "choices=" not in line] == []
