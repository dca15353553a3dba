"""TensorBoard's event file holds what metrics.jsonl holds, also of a run that was stopped and resumed."""

import os
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ms_vireid import train
from ms_vireid.command.errors import InputError
from ms_vireid.engine.events import Events, scalars
from tests.test_train import TINY, command, logged, refused, stopped_at

OPTIONS = [*TINY.split(), "stages.0.epochs=2", "stages.1.epochs=2", "train.iterations=2", "train.evaluate_every=1"]


def shown(folder):
    """{tag: [(step, value)]} as TensorBoard reads them; scalars are float32."""
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_a_resumed_runs_events_are_its_metrics(tmp_path, monkeypatch):
    options = [*OPTIONS, "--output", "run", "train.tensorboard=true"]
    stopped_at(monkeypatch, tmp_path, 3, *options)
    assert len(shown(tmp_path / "run/tensorboard")["train/loss"]) == 3
    command(monkeypatch, tmp_path, train, *options, "--resume", "auto")
    rows, found = logged(tmp_path / "run"), shown(tmp_path / "run/tensorboard")
    expected = {}
    for row in rows:
        for tag, value in scalars(row):
            expected.setdefault(tag, []).append((row["step"], pytest.approx(value, rel=1e-6)))
    assert found == expected
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(found["evaluation/rank1"]) == 4
    assert {"train/id", "learning_rate/full", "speed/images_per_second", "epoch"} <= found.keys()


def test_what_the_run_did_not_write_stays_beside_its_events(tmp_path, monkeypatch):
    options = [*OPTIONS, "--output", "run", "train.tensorboard=true"]
    mine = tmp_path / "run/tensorboard/events.out.tfevents.1.mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("")
    stopped_at(monkeypatch, tmp_path, 3, *options)
    command(monkeypatch, tmp_path, train, *options, "--resume", "auto")
    assert mine.read_text() == ""
    assert len(list(mine.parent.iterdir())) == 2  # the first part's file is gone
    assert [step for step, _ in shown(mine.parent)["train/loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_without_it_no_event_is_written_and_without_the_package_it_is_refused(tmp_path, monkeypatch, capfd):
    command(monkeypatch, tmp_path, train, *OPTIONS, "--output", "run")
    assert not (tmp_path / "run/tensorboard").exists()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    error = refused(monkeypatch, tmp_path, capfd, train, *OPTIONS, "--output", "new", "train.tensorboard=true")
    assert error == "error: train.tensorboard needs tensorboard: pip install -e '.[tensorboard]'"
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    row = {"epoch": 1, "step": 1, "loss": 1.0}
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe: cannot be created \(File exists\)"):
        Events(tmp_path / "pipe/events", [row])

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    events = Events(tmp_path / "events/tfevents", [row])
    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); free space, then run"):
        events.append(row)
    assert len(shown(tmp_path / "events")["train/loss"]) == 1
