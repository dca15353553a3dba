"""Training with dropout and drop path goes as it does outside: `parity/measure/dropout.py` in small.

The ladder cannot see an error of the design that both mirrors share; this does.
"""

import argparse
import json

import numpy as np
import pytest
import torch

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run
from parity.measure import dropout
from parity.measure.dropout_runs import Task, configuration, lag, read, table
from parity.measure.dropout_trainings import Start
from torch_ref.models import layers

SEEDS, NOISES, EPOCHS = 2, 4, 2


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "data"
    arguments = argparse.Namespace(epochs=EPOCHS, data_root=root, overrides=())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield [Start(configuration(Task("", 0.2, 0.0, seed), arguments), EPOCHS) for seed in range(SEEDS)]
    torch.set_num_threads(threads)


def losses(starts, side, noises=NOISES):
    """Of the last epoch."""
    return np.array([[start.losses(side, noise)[-1:] for noise in range(noises)] for start in starts])


@pytest.fixture(scope="module")
def outside(starts):
    return losses(starts, "outside")


def test_training_goes_as_outside(starts, outside):
    difference, error = lag(losses(starts, "torch_ref"), outside)
    assert abs(difference) < 3 * error


def intervals_that_do_not_wrap(original, layer, x, noise):
    """As this project's masks once were: an interval of the noise for each, between the ends of int32."""
    if noise is None:
        return original(layer, x, noise)
    numbers = torch.tensor(layer.numbers, dtype=torch.int32).reshape(-1, 1) * noise[0].flatten()[0]
    shares = numbers.double() / 2**32 + 0.5
    first = shares * (1 - layer.rate)
    place = noise[0].unsqueeze(-2).double() / 2**32 + 0.5
    dropped = (place >= first) & (place < first + layer.rate)
    return x.masked_fill(dropped.reshape(x.shape), 0.0) * layer.scale


def flipped(noise):
    return noise[0].flip(0), noise[1]


def twice(original, layer, x, noise):
    once = original(layer, x, noise)
    return once if noise is None else original(layer, once, flipped(noise))


def backward_by_another_mask(original, layer, x, noise):
    dropped = original(layer, x, noise)
    if noise is None:
        return dropped
    other = original(layer, x, flipped(noise))
    return dropped.detach() + other - other.detach()


@pytest.mark.parametrize(
    ("plant", "seeds", "noises"),
    [(intervals_that_do_not_wrap, SEEDS, NOISES), (twice, 1, 2), (backward_by_another_mask, SEEDS, 2)],
)
def test_an_error_that_both_mirrors_share_is_seen(starts, outside, plant, seeds, noises, monkeypatch):
    original = layers.Dropout.forward
    monkeypatch.setattr(layers.Dropout, "forward", lambda *arguments: plant(original, *arguments))
    difference, error = lag(losses(starts[:seeds], "torch_ref", noises), outside[:seeds])
    assert difference > 3 * error


# The command.


def test_the_table_gives_what_the_others_are_above_outside():
    found = {
        Task("outside", 0.2, 0.1, 0): [[2.0, 1.0], [2.0, 3.0]],
        Task("graph", 0.2, 0.1, 0): [[2.5, 2.0], [2.5, 2.0]],
    }
    rows = table(found).splitlines()
    assert rows[1] == "dropout 0.2, drop path 0.1"
    assert rows[2].split() == ["outside", "2.000", "2.000", "1", "seeds"]
    assert rows[3].split() == ["graph", "+0.500", "±", "0.000", "+0.000", "±", "1.000", "1", "seeds"]


def test_runs_are_read_again(tmp_path):
    one, held = Task("numba", 0.0, 0.1, 3), [[2.0, 1.5], [2.0, 1.4]]
    path = tmp_path / "found.jsonl"
    how = {"noises": 2, "epochs": 2, "overrides": ["optimizer.lr=1e-4"]}
    path.write_text(json.dumps(one._asdict() | how | {"losses": held}) + "\n")
    assert read(path, how) == {one: held}
    assert read(tmp_path / "none.jsonl", how) == {}
    with pytest.raises(InputError, match=r"found\.jsonl: was made with noises 2; give the same"):
        read(path, how | {"noises": 3})


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["dropout.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run(dropout.main)
    return stopped.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--noises", "1"), "--noises 1: must be at least 2"),
        (("--rates", "0.03"), "is not DROPOUT,PATH"),
        (("--rates", "0.1,2"), "below 1"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, monkeypatch, capsys, arguments, message):
    given = "--data-root", tmp_path / "data", "--output", tmp_path / "found.jsonl"
    assert command(monkeypatch, *given, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", '{"side": "outside"}'])
def test_a_file_of_something_else_is_told_in_a_line_and_kept(tmp_path, monkeypatch, capsys, content):
    path = tmp_path / "found.jsonl"
    path.write_text(content)
    assert command(monkeypatch, "--data-root", tmp_path / "data", "--output", path) == 2
    assert f"{path}: is not what this command writes" in capsys.readouterr().err
    assert path.read_text() == content
    assert not (tmp_path / "data").exists()


def test_the_command_trains_what_is_missing_and_prints_the_table(tmp_path, monkeypatch, capsys):
    path = tmp_path / "found.jsonl"
    few = "--seeds", "1", "--noises", "2", "--epochs", "1", "--sides", "torch_ref", "outside"
    where = "--data-root", str(tmp_path / "data"), "--output", str(path)
    monkeypatch.setattr("sys.argv", ["dropout.py", "train.num_identities=2", *where, *few, "--rates", "0.2,0.1"])
    dropout.main()
    held = path.read_text()
    assert len(held.splitlines()) == 2
    assert "torch_ref" in capsys.readouterr().out
    dropout.main()
    assert path.read_text() == held
