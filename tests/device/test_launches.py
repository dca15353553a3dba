"""The benchmark's counts of what a step asks of a GPU and of an Ascend."""

import subprocess
from argparse import Namespace
from functools import cache

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.devices import runtime
from ms_vireid.devices.replaceable import title
from ms_vireid.programs.graph import TABLES
from parity.measure import launches, sections

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
    assert row["torch_launches"] > 100
    assert row["first_s"] > 1
    assert "calls" not in row
    return row


def test_a_compiled_step_is_counted_at_its_batch():
    small, large = compiled_row("GPU", 2), compiled_row("GPU", 4)
    assert small["launches"] == large["launches"]
    # Twice the activations; weights and what the batch does not change take their part.
    assert 1.3 < large["peak_gib"] / small["peak_gib"] < 2
    assert 0 < small["h100_kernels_ms"] < large["h100_kernels_ms"]
    assert all(row["h100_ms"] >= max(row["h100_kernels_ms"], row["host_ms"]) for row in (small, large))


def test_a_compiled_step_of_an_ascend_is_counted_and_has_no_price():
    assert compiled_row("Ascend", 2)["h100_ms"] is None


def test_a_step_is_priced_by_its_kinds_beside_pytorchs(monkeypatch):
    monkeypatch.setattr(launches, "LEAST_MS", 0.0)  # so small a step has only short kinds
    options = Namespace(overrides=(*SMALL, "train.num_identities=2"))
    rows = dict(launches.costs(["PMT float32"], options))
    whole, *kinds = rows.values()
    found = [row for row in kinds if row["kind"]]
    assert list(rows)[:2] == ["PMT float32", "PMT float32, 1"]
    assert whole["ms"] == pytest.approx(sum(row["ms"] for row in found))
    assert [row["ms"] for row in found] == sorted((row["ms"] for row in found), reverse=True)
    assert {row["kind"]: row["calls"] for row in found}["own layer_norm_float_4"] == 5
    assert kinds[0]["torch_kind"] == "product"
    assert sections.SECTIONS["costs"].line("PMT float32, 1", kinds[-1]).split()


def test_own_kernels_are_counted_with_their_tensors():
    calls = launches.calls_of("PMT float32", (*SMALL, "train.num_identities=2"))
    gelu = "own gelu_float_4\tfloat32[8,211,128] float32[128] int32[1688] int32[32] int32[4] float32[8,211,128]"
    assert calls[gelu] == 2  # one a block
    (sums,) = (
        number for call, number in calls.items() if call.startswith("own sums_") and " float32[132,128] " in call
    )
    assert sums == 2  # all of a block's vectors at once


def test_a_step_without_a_replacement_is_counted_beside_the_whole():
    options = Namespace(overrides=(*SMALL, "train.num_identities=2"))
    ((name, row),) = launches.replacements(["GPU: PMT, Attention"], options)
    assert row["whole"]["launches"] == only_row("GPU: PMT graph", "train.num_identities=2")["launches"]
    assert row["without"]["launches"] != row["whole"]["launches"]
    assert sections.SECTIONS["replacements"].line(name, row).startswith("GPU: PMT, Attention   ")


def test_every_replacement_has_a_row():
    found = {(device, cell) for device, _, cell in launches.REPLACEMENT_ROWS.values()}
    assert found == {(device, title(key)) for device in COPIES for key in TABLES[device]}


def test_a_resnets_step_with_recompute_keeps_less():
    sizes = (*NARROW, "model.non_local=[0,0,1,0]", "train.num_identities=4")
    without, recomputed = (
        only_row("GPU: AGW cuda", f"train.recompute={value}", sizes=sizes) for value in ("false", "true")
    )
    assert recomputed["peak_gib"] < 0.7 * without["peak_gib"]
    assert without["launches"] < recomputed["launches"] < 1.5 * without["launches"]


def test_the_host_is_timed_as_mindspore_comes_and_as_it_is_set_up_in_turn(monkeypatch):
    asked = []

    def count(name, device, config, what, without, overrides, variables):
        asked.append(dict(variables))
        return dict.fromkeys(launches.HOST, float(10 - len(asked))) | {"batch": 64, "launches": len(asked)}

    monkeypatch.setattr(launches, "_count", count)
    ((name, row),) = launches.host(["GPU: PMT cuda"], Namespace(overrides=()))
    assert asked == [dict.fromkeys(runtime.HOST_SWITCHES, "0"), {}] * 2
    assert (row["without"]["host_ms"], row["whole"]["host_ms"]) == (7.0, 6.0)
    assert sections.SECTIONS["host"].line(name, row).split()[-1] == "0.86"


def test_a_row_that_fails_is_told_in_a_line():
    with pytest.raises(InputError, match=r"GPU: PMT graph: ended with 2: .*model\.depth"):
        only_row("GPU: PMT graph", "model.depth=-1")


def test_a_row_that_hangs_is_told_in_a_line(monkeypatch, stand_in):
    def run(command, limit_s, *_, **__):
        raise subprocess.TimeoutExpired(command, limit_s)

    monkeypatch.setattr(type(stand_in), "run", lambda self, *given, **options: run(*given, **options))
    with pytest.raises(InputError, match="PMT graph: still compiling or hanging after 1800 s, and killed"):
        only_row("GPU: PMT graph")
