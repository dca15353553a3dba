"""The ladder's rungs that compute, on the device of `pytest --device`, by all its programs; on the CPU, where
tests/parity has all of them, one of each rung, so that this path too is tested everywhere."""

import mindspore
import pytest

from parity import compare
from parity.cases import COMPUTING, LADDER, run
from parity.harness import Case

CASES = [case for case in LADDER if case.rung in COMPUTING]
SAMPLE_NAMES = (
    "2 Block with dropout and drop path",
    "3 dcl all",
    "4 PMT small, gradients",
    "5 PMT stage 1, six updates",
)
SAMPLE = [{str(case): case for case in CASES}[name] for name in SAMPLE_NAMES]


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        on_cpu = metafunc.config.getoption("--device") == "CPU"
        on_device = [case for case in CASES if case.is_for(metafunc.config.getoption("--device"))]
        metafunc.parametrize("case", SAMPLE if on_cpu else on_device, ids=str)


def test_the_device_computes_what_pytorch_computes_on_the_cpu(case):
    over = [str(comparison) for comparison in run(case).comparisons if not comparison.passed]
    assert not over, f"{len(over)} over tolerance, the first: {over[0]}"


def case_with(error, tolerance, rung=2):
    made = [compare.Comparison("planted", error, tolerance, "")]
    return Case(rung, "planted", lambda: lambda _program: made)


@pytest.mark.parametrize(
    ("rung", "error", "tolerance", "passes"),
    [
        (2, 9e-5, compare.FORWARD, True),
        (2, 2e-4, compare.FORWARD, False),
        (4, 9e-4, compare.GRADIENT, True),
        (4, 2e-3, compare.GRADIENT, False),
        (2, 1.0, compare.EXACT, False),
        (5, 1.1, compare.REACH, False),
        (6, 2e-5, compare.FORWARD, False),
    ],
)
def test_rounding_has_ten_times_the_room_on_a_gpu_and_nothing_else_has(monkeypatch, rung, error, tolerance, passes):
    monkeypatch.setattr(mindspore, "get_context", {"device_target": "GPU"}.__getitem__)
    assert run(case_with(error, tolerance, rung)).passed is passes


def test_the_cpu_keeps_its_tolerances(monkeypatch):
    monkeypatch.setattr(mindspore, "get_context", {"device_target": "CPU"}.__getitem__)
    assert not run(case_with(2e-5, compare.FORWARD)).passed
