"""Ctrl-C and SIGTERM beside loader workers: one line, exit code 130, no process left, nothing half-written."""

import gc
import json
import os
import signal

import psutil
import pytest

from ms_vireid import evaluate, report, train
from ms_vireid.command.stopping import stop_requests
from ms_vireid.files.checks import file_checksum, unsealed
from ms_vireid.inference import features
from tests.checkpoints import DATA
from tests.report_run import OPTIONS, command, trained_run

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
