"""The ladder's small cases that compute, on the stand-in Ascend, compiled and operator by operator."""

import pytest

from tests.device.test_gpu_ladder import CASES, TRAINING


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_compiled_program_computes_what_pytorch_computes(ascend_worker, case):
    assert ascend_worker.do("run_case", str(case), "graph") == []


def test_twenty_compiled_steps_end_where_pytorchs_do(ascend_worker):
    assert ascend_worker.do("run_case", TRAINING, "graph") == []


@pytest.mark.parametrize("case", [case for case in CASES if case.rung == 2], ids=str)
def test_operators_one_by_one_compute_what_pytorch_computes(ascend_worker, case):
    assert ascend_worker.do("run_case", str(case), "operators") == []
