"""Runs killed for real, at several moments, and resumed: the final weights are bitwise those of a run left alone."""

import json
import os
import re
import signal
import subprocess
import sys

import mindspore as ms
import pytest

from ms_vireid.checkpoints.weights import read_checkpoint
from tests.tiny_models import SMALL_RUN

OVERRIDES = [*SMALL_RUN, "data.workers=1", "stages.1.epochs=2", "train.log_steps=1"]

# Runs the command; in the Step or file of weights of the number that is given, the moment comes.
DRIVER = """
import os, resource, signal, sys
import mindspore
from ms_vireid import train
from ms_vireid.command.running import run
from ms_vireid.backends.backend import Step
from ms_vireid.checkpoints import weights
moment, number = sys.argv[1], int(sys.argv[2])
sys.argv[1:] = sys.argv[3:]
count = 0

def half_written(_, path, *__):
    with open(path, "wb") as file:
        file.write(b"half a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

def no_space(*_):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

MOMENTS = {
    "interrupt": (Step, "__call__", lambda *_: os.kill(os.getpid(), signal.SIGINT)),
    "kill while writing": (weights, "save_file", half_written),
    "disk full": (weights, "save_file", no_space),
}
if moment in MOMENTS:
    target, name, act = MOMENTS[moment]
    original = getattr(target, name)
    def patched(*arguments):
        global count
        count += 1
        if count == number:
            act(*arguments)
        return original(*arguments)
    setattr(target, name, patched)
run(train.main)
"""


def train(folder, *arguments, moment="never", number=0):
    command = [sys.executable, "-c", DRIVER, moment, str(number), "--device", "CPU", "--output", str(folder / "run")]
    return subprocess.run(
        [*command, *arguments, *OVERRIDES], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


def weights(path):
    return {name: array.tobytes() for name, array in read_checkpoint(path).arrays.items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = train(folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def assert_resumes_to(folder, undisturbed):
    done = train(folder, "--resume", "auto")
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "last.safetensors"):
        assert weights(folder / "run" / name) == weights(undisturbed / name)
    left = [path.name for path in (folder / "run").iterdir() if path.name.startswith(".")]
    assert left == []


def test_a_run_killed_while_it_writes_resumes_bitwise(tmp_path, undisturbed):
    """The other moments are in test_faults.py."""
    killed = train(tmp_path, moment="kill while writing", number=2)
    assert killed.returncode == -signal.SIGKILL
    assert_resumes_to(tmp_path, undisturbed)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 10))


def test_ctrl_c_finishes_the_step_and_leaves_a_resumable_run(tmp_path, undisturbed):
    stopped = train(tmp_path, moment="interrupt", number=5)
    assert stopped.returncode == 130
    assert re.search(r"stopped at step 5; go on with --resume auto", stopped.stderr)
    assert "Traceback" not in stopped.stderr
    assert_resumes_to(tmp_path, undisturbed)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, undisturbed):
    failed = train(tmp_path, moment="disk full", number=2)
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    assert "last.safetensors: cannot be written" in failed.stderr
    assert "the earlier last.safetensors is intact" in failed.stderr
    read_checkpoint(tmp_path / "run/last.safetensors")


def test_the_resolved_configuration_of_a_run_repeats_it_and_the_command_is_kept(undisturbed):
    words = "-m", "ms_vireid", "train", "--config", str(undisturbed / "config.yaml"), "--output", "again"
    command = [sys.executable, *words]
    again = subprocess.run(
        command, cwd=undisturbed.parent, capture_output=True, text=True, env=os.environ | {"GLOG_v": "3"}, check=False
    )
    assert again.returncode == 0, again.stderr
    assert weights(undisturbed.parent / "again" / "model.safetensors") == weights(undisturbed / "model.safetensors")
    assert json.loads((undisturbed.parent / "again" / "run.json").read_text())["command"] == command


def test_a_run_folder_says_how_to_repeat_the_run(undisturbed):
    record = json.loads((undisturbed / "run.json").read_text())
    assert record["seed"] == 0
    assert record["device"].startswith("CPU")
    assert record["versions"]["mindspore"] == ms.__version__
    assert re.fullmatch("content:[0-9a-f]{64}", record["data"]["checksum"])
    assert record["config"]["stages"][1]["losses"]["msel"]["weight"] == 0.5
    result = json.loads((undisturbed / "result.json").read_text())
    assert set(result["trained"]) == set(result["chance"]) == {"rank1", "rank5", "rank10", "rank20", "map", "minp"}
