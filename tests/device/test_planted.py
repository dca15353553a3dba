"""Errors on the way to a device: a device's column of the ladder names each, and the CPU's do not know of it."""

import pytest

from parity.cases import LADDER, run
from parity.stand_in.toolchain import SHARED

CASES = {str(case): case for case in LADDER}
# What arrives at the device otherwise than it was sent, and a case that must notice.
PLANTED = {
    "transposition": "2 Attention",  # a transposed operand of a product is read as it lies
    "axis": "2 Attention with large scores",  # of a softmax or a reduction
    "epsilon": "2 LayerNorm",
    "cast": "2 Mlp",  # a result in float32 passes through float16
    "momentum": "2 BatchNorm",  # of a running average: the share of the new for that of the old
    "scalar": "5 PMT stage 1, six updates",  # of an update
    "broadcast": "3 hard triplet",  # an operand along another axis
    "stride": "2 ResNet stem",  # of a convolution
}


def test_there_is_an_error_to_plant_for_each_and_a_case_for_each_error():
    sources = [path.read_text() for path in SHARED.parent.rglob("*.cc")]
    for error in PLANTED:
        assert any(f'planted("{error}")' in source for source in sources), error
    assert all(case in CASES for case in PLANTED.values())


@pytest.mark.parametrize("error", PLANTED)
def test_the_devices_column_notices(either, error):
    assert either.do("run_case", PLANTED[error], "graph", error) != []
    assert either.do("run_case", PLANTED[error], "graph") == []


def test_another_scale_of_fused_attention_is_noticed(ascend_worker):
    case = "2 Attention, 3 heads, float16"
    assert ascend_worker.do("run_case", case, "graph", "attention") != []
    assert ascend_worker.do("run_case", case, "graph") == []


@pytest.mark.parametrize("error", PLANTED)
def test_no_other_column_notices(monkeypatch, error):
    monkeypatch.setenv("STAND_IN_PLANT", error)
    assert run(CASES[PLANTED[error]]).passed
