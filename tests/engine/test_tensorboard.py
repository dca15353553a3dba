"""TensorBoard's event file holds what metrics.jsonl holds, also of a run that was stopped and resumed."""

import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ms_vireid import train
from ms_vireid.engine.events import scalars
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


def test_without_it_no_event_is_written_and_without_the_package_it_is_refused(tmp_path, monkeypatch, capfd):
    command(monkeypatch, tmp_path, train, *OPTIONS, "--output", "run")
    assert not (tmp_path / "run/tensorboard").exists()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    error = refused(monkeypatch, tmp_path, capfd, train, *OPTIONS, "--output", "new", "train.tensorboard=true")
    assert error == "error: train.tensorboard needs tensorboard: pip install -e '.[tensorboard]'"
    assert not (tmp_path / "new").exists()
