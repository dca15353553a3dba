"""Ctrl-C and SIGTERM beside loader workers: one line, exit code 130, no process left, nothing half-written."""

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import psutil
import pytest

from ms_vireid import report, train
from ms_vireid.command.stopping import stop_requests
from ms_vireid.files.checks import file_checksum, unsealed
from ms_vireid.search import features
from tests.report_run import OPTIONS, command, trained_run
from tests.tiny_models import DATA

evaluate = import_module("ms_vireid.evaluate")  # the command
ONCE = ("data.workers=2", "train.evaluate_every=0", "evaluation.compare_untrained=false")  # evaluated at the end alone


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return trained_run(tmp_path_factory.mktemp("interrupt"), *ONCE)


@pytest.fixture
def stopped_at(monkeypatch):
    """Send a signal with the `batch`-th batch of features, of all that are extracted, in hand."""

    def prepare(number, batch):
        count = 0

        def progress(items, *_):
            nonlocal count
            for item in items:
                count += 1
                if count == batch:
                    os.kill(os.getpid(), number)
                yield item

        monkeypatch.setattr(features, "progress", progress)

    return prepare


def interrupted(module, *arguments):
    before = children()
    with pytest.raises(SystemExit) as stopped:
        command(module, *arguments)
    assert stopped.value.code == 130
    del stopped
    gc.collect()  # the traceback keeps what the command held, its run folder's lock too
    assert not children() - before


def children():
    """Running ones: others than loader workers may be left by earlier tests, as multiprocessing's resource tracker."""
    return {child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


@pytest.mark.parametrize(("number", "batch"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_an_evaluation_that_is_stopped_says_so_in_one_line(finished, stopped_at, tmp_path, capfd, number, batch):
    before = signal.getsignal(number)
    stopped_at(number, batch)
    interrupted(evaluate, "--checkpoint", finished / "model.safetensors", "--json", tmp_path / "result.json")
    assert capfd.readouterr().err == "stopped; nothing was evaluated\n"
    assert not (tmp_path / "result.json").exists()
    assert signal.getsignal(number) is before


def test_a_page_that_is_stopped_is_not_written(finished, stopped_at, capfd):
    stopped_at(signal.SIGINT, 1)
    interrupted(report, finished)
    assert capfd.readouterr().err == "stopped; no page was written\n"
    assert not (finished / "report.html").exists()


def test_a_training_stopped_in_its_last_evaluation_is_resumed(finished, stopped_at, tmp_path, monkeypatch, capfd):
    recipe = [DATA % (finished.parent / "data"), *OPTIONS, *ONCE]
    stopped_at(signal.SIGINT, 1)
    interrupted(train, "--output", tmp_path / "run", *recipe)
    said = f"stopped at step 4; go on with --resume auto --output {tmp_path / 'run'}\n"
    assert capfd.readouterr().err.endswith(said)
    assert not (tmp_path / "run/result.json").exists()
    monkeypatch.undo()
    command(train, "--output", tmp_path / "run", "--resume", "auto", *recipe)
    ended, whole = (
        unsealed(json.loads((folder / "result.json").read_text())) for folder in (tmp_path / "run", finished)
    )
    assert ended["protocol"].pop("sha256") == file_checksum(tmp_path / "run/model.safetensors")
    assert whole["protocol"].pop("sha256") == file_checksum(finished / "model.safetensors")
    assert ended == whole


def test_an_evaluation_during_training_is_ended_before_the_stop(stopped_at, finished, tmp_path):
    """What `train.select=best` chooses by does not depend on where a run was stopped."""
    recipe = [DATA % (finished.parent / "data"), *OPTIONS, "data.workers=2"]
    stopped_at(signal.SIGINT, 1)
    interrupted(train, "--output", tmp_path / "run", *recipe)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["epoch"] == 1
    assert {"rank1", "map"} <= rows[-1]["evaluation"].keys()


def test_of_nested_requests_the_outer_one_decides():
    with stop_requests() as outer:
        with stop_requests() as inner:
            os.kill(os.getpid(), signal.SIGINT)
        assert (outer, inner) == ([signal.SIGINT], [])
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with stop_requests() as alone:
        os.kill(os.getpid(), signal.SIGTERM)
    assert alone == [signal.SIGTERM]


ROOT = Path(__file__).parents[1]
STARTED = {  # by the command's file, what it is given in the folder of a run
    "ms_vireid/evaluate.py": ("--checkpoint", "model.safetensors", "--device", "CPU"),
    "ms_vireid/extract.py": ("--checkpoint", ".", "--device", "CPU", "--images", "../data", "--output", "x.npz"),
    "ms_vireid/retrieve.py": ("--checkpoint", ".", "--device", "CPU", "--query", "../data", "--gallery", "../data"),
    "ms_vireid/report.py": (".", "--device", "CPU", "--output", "x.html"),
    "ms_vireid/visualize.py": ("curves", ".", "--output", "x.png"),
    "ms_vireid/export.py": ("--checkpoint", ".", "--format", "onnx", "--output", "x.onnx"),
    "ms_vireid/check_data.py": ("--data-root", "../data", "data.name=sysu_mm01"),
    "ms_vireid/train.py": ("--device", "CPU", "--output", "x", DATA % "../data", *OPTIONS),
    "parity/convert.py": ("model.safetensors", "x.pth"),
    "parity/report.py": ("--rung", "1"),
}
ENDS = {"ms_vireid/check_data.py": 1}  # as this set has fewer pictures than the published one; the others end with 0
MOMENTS, EARLY_S = 4, 1.2  # of each; most of their imports take as long
AT_ONCE = 20  # moments more at most, without a wait, where a quick command had ended before each of these


def answers(process):
    """Whether a command answers SIGTERM yet, which Python does not by itself."""
    caught = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigCgt" in line)
    return int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1


def _with_ctrl_c():
    """A shell's background has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.skipif(sys.platform != "linux", reason="signals that a process answers are seen in /proc")
@pytest.mark.parametrize("command", STARTED)
def test_a_command_that_is_still_starting_ends_without_a_word(finished, command, pytestconfig):
    generator = random.Random(f"{command} {pytestconfig.getoption('--fuzz-seed')}")
    before, codes = set(finished.iterdir()), []
    for moment in range(MOMENTS + AT_ONCE):
        if moment >= MOMENTS and 130 in codes:
            break
        given = [sys.executable, ROOT / command, *STARTED[command]]
        pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(given, cwd=finished, preexec_fn=_with_ctrl_c, **pipes) as process:
            while process.poll() is None and not answers(process):
                time.sleep(0.001)
            time.sleep(generator.uniform(0, EARLY_S) if moment < MOMENTS else 0)
            if process.poll() is None:
                process.send_signal(generator.choice([signal.SIGINT, signal.SIGTERM]))
                said = process.communicate(timeout=300)[1].splitlines()
                others = [line for line in said if "stopped" not in line and "note:" not in line]
                assert others == []
                codes.append(process.returncode)
            else:
                process.communicate()
        shutil.rmtree(finished / "x", ignore_errors=True)  # a run that has begun
    assert set(finished.iterdir()) == before
    too_late = ENDS.get(command, 0)  # for a signal that meets the last moments of a command
    assert set(codes) <= {130, too_late}
    assert 130 in codes


def test_a_program_that_imports_this_one_keeps_its_own_handlers():
    script = """
import signal
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
import ms_vireid.command.running, ms_vireid.evaluate, ms_vireid.__main__
assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
"""
    assert not subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode


def test_signals_that_are_ignored_stay_so(tmp_path):
    """As of a command that a shell has sent to the background."""
    ignores = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    (tmp_path / "ms-vireid").write_text(
        "import ms_vireid.command.starting, os, signal; os.kill(os.getpid(), signal.SIGINT); print('went on')"
    )
    given = [sys.executable, "-c", ignores, sys.executable, tmp_path / "ms-vireid"]
    done = subprocess.run(given, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.stdout == b"went on\n"
