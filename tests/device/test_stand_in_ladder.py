"""The ladder's rungs that compute, on the stand-in GPU: every operator is there and takes its types and shapes. Values
mean nothing, so a case fails by an exception alone. Real widths are left out: the same operators, and PyTorch takes a
minute and a half for them."""

import pytest

from parity.cases import COMPUTING, LADDER

CASES = [str(case) for case in LADDER if case.rung in COMPUTING and (case.small or case.rung == 5)]


@pytest.mark.parametrize("name", CASES)
def test_mindspore_has_what_the_case_needs(blocking_worker, name):
    blocking_worker.do("run_rung", name)
