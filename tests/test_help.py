"""`--help` and a mistake on the command line are answered before anything that takes time is imported."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
NUMBERED = sorted({*COMMANDS, "parity.benchmark", "parity.report", "parity.stand_in"})
TRIED = ("0", "-1", "1000000000", "1" + "0" * 30, "nan", "1e400", "-1e400", "", "٣", "1_0", "9" * 10**6, "x" * 10**6)
# Gives every number of these commands to its command, with a mistake after it. Prints command, option, least and most
# value, and what was said of each.
NUMBERS_SCRIPT = """
import contextlib, io, json, runpy, sys
from ms_vireid.command.running import Parser
slow, tried, commands = json.load(sys.stdin)

def said_to(command, *words):
    module, *rest = command.split()
    sys.argv = [module, *rest, *words, "--no-such-option"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert ended.code == 2
    return said.getvalue().strip()

add_number, found = Parser.add_number, {}
def record(parser, option, bounds, **options):
    if parser.prog.split()[1:] == command.split()[1:]:
        found[command, option] = bounds[:2]
    add_number(parser, option, bounds, **options)
Parser.add_number = record
for command in commands:
    said_to(command)
Parser.add_number = add_number
for (command, option), bounds in found.items():
    print(json.dumps([command, option, *bounds, [said_to(command, f"{option}={value}") for value in tried]]))
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
    done = subprocess.run(
        [sys.executable, "-c", NUMBERS_SCRIPT],
        cwd=ROOT,
        input=json.dumps([SLOW, TRIED, NUMBERED]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == ""
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({option for _, option, *_ in rows}) > 15
    for command, option, least, most, said in rows:
        for value, line in zip(TRIED, said, strict=True):
            fits = value in ("0", "-1", "1000000000") and least <= int(value) <= most
            assert line.startswith("error: ")
            assert line.startswith(f"error: {option} ") != fits, (command, value, line)
            assert len(line) <= 300


def test_no_option_takes_a_number_without_bounds():
    found = subprocess.run(
        ["git", "grep", "-nE", r"type=(int|float)\b", "--", "ms_vireid", "parity", "torch_ref"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in found.stdout.splitlines() if "choices=" not in line] == []
