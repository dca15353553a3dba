"""The ladder's small cases that compute, on the stand-in GPU, compiled and operator by operator."""

import pytest

from parity.cases import LADDER, is_for_stand_ins

CASES = [case for case in LADDER if is_for_stand_ins(case) and case.small]
TRAINING = "5 PMT stage 2, MindSpore"  # of twenty steps; parity/report.py --stand-in has the others


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_compiled_program_computes_what_pytorch_computes(worker, case):
    assert worker.do("run_case", str(case), "graph") == []


def test_twenty_compiled_steps_end_where_pytorchs_do(worker):
    assert worker.do("run_case", TRAINING, "graph") == []


@pytest.mark.parametrize("case", [case for case in CASES if case.rung == 2], ids=str)
def test_operators_one_by_one_compute_what_pytorch_computes(worker, case):
    assert worker.do("run_case", str(case), "operators") == []
