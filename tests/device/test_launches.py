"""The benchmark's counts of what a step asks of a GPU and of an Ascend."""

import subprocess
from argparse import Namespace
from functools import cache

import pytest

from ms_vireid.command.errors import InputError
from parity.measure import launches

SMALL = ("model.embed_dim=32", "model.depth=2", "model.num_heads=2", "train.num_instances=2")
NARROW = ("model.layers=[1,1,1,1]", "model.width=8", "train.num_instances=2")  # of a ResNet


COPIES = {"GPU": 12, "Ascend": 4}  # at most, of a step


@pytest.fixture(autouse=True)
def built(stand_in, ascend):
    """Or skipped."""


@cache
def only_row(name, *overrides, sizes=SMALL):
    ((found, row),) = launches.rows([name], Namespace(overrides=(*sizes, *overrides)))
    assert found == name
    return row


def compiled_row(device, identities):
    row = only_row(f"{device}: PMT graph", f"train.num_identities={identities}")
    assert row["batch"] == 4 * identities
    assert row["launches"] > 100
    assert (row["waits"], row["allocations"]) == (0, 0)
    assert 2 <= row["copies"] <= COPIES[device]
    assert row["first_s"] > 1
    assert row["host_ms"] > 0
    return row


def test_a_compiled_step_is_counted_at_its_batch():
    small, large = compiled_row("GPU", 2), compiled_row("GPU", 4)
    assert small["launches"] == large["launches"]
    # Twice the activations; weights and what the batch does not change take their part.
    assert 1.3 < large["peak_gib"] / small["peak_gib"] < 2


def test_a_compiled_step_of_an_ascend_is_counted():
    assert 0 < compiled_row("Ascend", 2)["by_name"] < 150


def test_a_resnets_step_with_recompute_keeps_less():
    sizes = (*NARROW, "model.non_local=[0,0,1,0]", "train.num_identities=4")
    without, recomputed = (
        only_row("GPU: AGW cuda", f"train.recompute={value}", sizes=sizes) for value in ("false", "true")
    )
    assert recomputed["peak_gib"] < 0.7 * without["peak_gib"]
    assert without["launches"] < recomputed["launches"] < 1.5 * without["launches"]


def test_a_row_that_fails_is_told_in_a_line():
    with pytest.raises(InputError, match=r"GPU: PMT graph: ended with 2: .*model\.depth"):
        only_row("GPU: PMT graph", "model.depth=-1")


def test_a_row_that_hangs_is_told_in_a_line(monkeypatch, stand_in):
    def run(command, limit_s, *_, **__):
        raise subprocess.TimeoutExpired(command, limit_s)

    monkeypatch.setattr(type(stand_in), "run", lambda self, *given, **options: run(*given, **options))
    with pytest.raises(InputError, match="PMT graph: still compiling or hanging after 1800 s, and killed"):
        only_row("GPU: PMT graph")
