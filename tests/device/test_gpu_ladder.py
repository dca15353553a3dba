"""The ladder's small cases that compute, on the stand-in GPU, compiled and operator by operator."""

import pytest

from parity.cases import LADDER, is_for_stand_ins

CASES = [case for case in LADDER if is_for_stand_ins(case) and case.small]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_compiled_program_computes_what_pytorch_computes(worker, case):
    assert worker.do("run_case", str(case), "graph") == []


@pytest.mark.parametrize("case", [case for case in CASES if case.rung == 2], ids=str)
def test_operators_one_by_one_compute_what_pytorch_computes(worker, case):
    assert worker.do("run_case", str(case), "operators") == []
