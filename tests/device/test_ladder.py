"""The ladder's rungs that compute, on the device of `pytest --device`, by all its backends; on the CPU, where
tests/parity has all of them, one of each rung, so that this path too is tested everywhere."""

import mindspore
import numpy as np
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


@pytest.mark.parametrize("device", ["CPU", "GPU", "Ascend"])
def test_every_device_has_the_same_tolerances(monkeypatch, device):
    monkeypatch.setattr(mindspore, "get_context", {"device_target": device}.__getitem__)
    made = [compare.compare("planted", np.array([1.0 + 2e-5]), np.array([1.0]), compare.FORWARD)]
    assert not run(Case(2, "planted", lambda: lambda _backend: made)).passed
