"""What a run meets besides its input: a kill, a full disk, pictures and workers that vanish, another run."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ms_vireid.checkpoints.weights import read_checkpoint
from ms_vireid.files.writing import write_text
from tests.engine.test_resume import OVERRIDES, weights

SMALL = [*OVERRIDES, "data.workers=0", "--device", "CPU"]
# Copies the run folder at every moment of the run: what a kill at that moment would leave.
SNAPSHOTS = """
import os, shutil, sys
from ms_vireid import train
from ms_vireid.command.running import run
from ms_vireid.checkpoints import weights
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.backends.backend import Step
count = 0

def snap():
    global count
    if os.path.isdir("run"):
        count += 1
        shutil.copytree("run", f"snapshots/{count:03d}")

def around(owner, name):
    original = getattr(owner, name)
    def patched(*arguments):
        snap()
        result = original(*arguments)
        snap()
        return result
    setattr(owner, name, patched)

around(os, "replace")
around(weights, "save_file")
around(RunFolder, "append_metrics")
around(Step, "__call__")
run(train.main)
"""


def train(folder, *arguments, script=None, wait=True):
    start = ["-c", script] if script else ["-m", "ms_vireid.train"]
    command = [sys.executable, *start, "--output", "run", *SMALL, *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, cwd=folder, stdout=-1, stderr=-1, text=True, env=environment)
    if not wait:
        return process
    output = process.communicate(timeout=500)
    return process.returncode, *output


def assert_refused(done):
    code, _, error = done
    assert (code, len(error.splitlines())) == (2, 1), error
    return error


@pytest.mark.parametrize("resumed", [0, 1])
def test_a_kill_at_any_moment_loses_no_checkpoint_and_resumes_bitwise(tmp_path, resumed):
    mode = "train.backend=eager", "model.depth=1"  # tests/device has graphs that are stopped and resumed
    code, _, error = train(tmp_path, *mode, script=SNAPSHOTS)
    assert code == 0, error
    whole = {name: weights(tmp_path / "run" / name) for name in ("model.safetensors", "last.safetensors")}
    snapshots = sorted((tmp_path / "snapshots").iterdir())
    assert len(snapshots) >= 20
    states = {}
    for folder in snapshots:
        last = folder / "last.safetensors"
        if last.exists():
            read_checkpoint(last)
            states.setdefault(hashlib.sha256(last.read_bytes()).hexdigest(), folder)
        else:
            assert not states  # once there, it is never gone
    assert len(states) == 3  # an epoch each
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(list(states.values())[resumed], tmp_path / "run")
    code, _, error = train(tmp_path, *mode, "--resume", "auto")
    assert code == 0, error
    assert {name: weights(tmp_path / "run" / name) for name in whole} == whole
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")] == []


def begun(folder, *arguments):
    """A long run, after its first steps."""
    process = train(folder, *arguments, "train.iterations=2000", wait=False)
    metrics = folder / "run/metrics.jsonl"
    for _ in range(1200):
        if metrics.exists() and metrics.stat().st_size:
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("it did not begin")


def ended(process):
    output = process.communicate(timeout=300)
    return process.returncode, *output


def test_two_runs_into_one_folder_and_pictures_that_vanish(tmp_path):
    process = begun(tmp_path, "--data-root", str(tmp_path / "data"), "data.cache=none")
    before = (tmp_path / "run/run.json").read_bytes()
    second = train(tmp_path, "--data-root", str(tmp_path / "data"), "--resume", "auto", "train.iterations=2000")
    error = assert_refused(second)
    assert f"run: process {process.pid} of" in error
    assert "is using it" in error
    assert (tmp_path / "run/run.json").read_bytes() == before
    shutil.rmtree(tmp_path / "data/cam2")
    error = assert_refused(ended(process))
    assert "cam2" in error
    assert "does not exist" in error
    again = train(tmp_path, "--data-root", str(tmp_path / "data"), "--resume", "auto", "train.iterations=2000")
    assert "its pictures are damaged or changed" in assert_refused(again)  # the lock went with the process


def test_a_worker_that_is_killed_ends_the_run(tmp_path):
    process = begun(tmp_path, "data.workers=1")
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    for child in map(int, children.split()):
        os.kill(child, signal.SIGKILL)
    code, _, error = ended(process)
    assert code == 2, error
    assert len(error.splitlines()) == 1
    assert "a process that reads pictures" in error


@pytest.mark.parametrize("fails", ["os.fsync", "os.replace", "pathlib.Path.write_text"])
def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch, fails):
    from ms_vireid.command.errors import InputError

    path = tmp_path / "a.json"
    write_text(path, "earlier")

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fails, full)
    with pytest.raises(InputError, match=r"a\.json: cannot be written \(No space left on device\); the earlier"):
        write_text(path, "later")
    assert path.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
