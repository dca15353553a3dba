"""Trainings on the parity ladder: PMT's second stage by every backend, MUN by kernels and operators, the others by
kernels. A graph is compiled on the stand-in devices, too (tests/device); `parity/report.py` has all by all."""

import numpy as np
import pytest

from ms_vireid.backends.choosing import OF_DEVICE
from parity import trajectory
from tests.parity.ladder import check, of_rungs, shorten_trainings

BACKENDS = OF_DEVICE["CPU"]

# MUN has AGW's parts too; those of its choices are layers, losses and six updates here.
RUNS = ("MindSpore", "MindSpore, then PyTorch", "PyTorch, then MindSpore")
ELSEWHERE = ("5 AGW, float16", *(f"5 MUN choices, {run}" for run in RUNS))


@pytest.fixture(scope="module", autouse=True)
def ten_steps():
    """Half of the ladder's: the hand-over is after five."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_trainings(patch, [name for name in trajectory.RECIPES if name != trajectory.FALL], 10)
        yield


CASES = [case for case in of_rungs(5) if str(case) not in ELSEWHERE]


def backends_of(case):
    if case.subject.endswith("float16"):  # their models are computed by both backends
        return ("graph",) if case.subject.startswith("PMT") else ("eager",)
    if not case.training or case.training == "PMT stage 2":
        return BACKENDS
    return ("numba", "eager") if case.training == "MUN" else ("numba",)  # other rungs' tests have the operators


PARTS = [(case, backend) for case in CASES for backend in backends_of(case)]


@pytest.mark.parametrize(("case", "backend"), PARTS, ids=str)
def test_a_training_goes_as_in_pytorch(case, backend):
    check(case, (backend,))


def test_what_is_left_out_are_cases():
    assert set(ELSEWHERE) <= set(map(str, of_rungs(5)))


@pytest.mark.parametrize(
    ("distances", "passed", "started"), [((0.04, 0.04, 0.01), True, 2), (trajectory.STARTS * (0.04,), False, 0)]
)
def test_a_training_in_half_precision_fails_where_all_its_starts_part(monkeypatch, distances, passed, started):
    def at(distance):
        return trajectory.Trajectory({"id": np.ones(20)}, {}, np.full((4, 8), 1.0 + distance, np.float32), 1.0)

    monkeypatch.setattr(trajectory, "by_autocast", lambda *_: at(0.0))
    monkeypatch.setattr(trajectory, "in_half", lambda _recipe, _amp, _backend, start: at(distances[start]))
    comparisons = trajectory.compare_half_training("PMT stage 2", "float16", "graph")
    assert all(comparison.passed for comparison in comparisons) == passed
    assert comparisons[-1].error == pytest.approx(distances[started])


def test_the_starts_of_trainings_in_half_precision_differ_by_its_rounding():
    weights = trajectory._initial("PMT stage 2")
    first, second = (trajectory._near(weights, start) for start in (0, 1))
    changed = 0
    for name, value in weights.items():
        assert np.array_equal(first[name], value)
        assert second[name].dtype == value.dtype
        assert np.abs(second[name] - value).max() <= trajectory.HALF * np.abs(value).max()
        changed += not np.array_equal(second[name], value)
    assert changed > 20  # zeros stay
