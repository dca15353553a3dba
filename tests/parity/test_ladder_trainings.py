"""Trainings on the parity ladder: PMT's second stage by every program, the others by kernels and operators. Of those a
graph is compiled on the stand-in devices (tests/device); `parity/report.py` has all by all."""

import pytest

from ms_vireid.programs.program import OF_DEVICE
from tests.parity.ladder import check, of_rungs

PROGRAMS = OF_DEVICE["CPU"]

ELSEWHERE = "5 AGW, float16"  # whose parts MUN has, too


@pytest.mark.parametrize("case", [case for case in of_rungs(5) if str(case) != ELSEWHERE], ids=str)
def test_a_training_goes_as_in_pytorch(case):
    if case.training and case.subject.startswith("MUN choices"):
        programs = ("kernels",)  # its layers and losses are operators in the other rungs' tests
    elif case.training and not case.subject.startswith("PMT stage 2"):
        programs = ("kernels", "operators")
    else:
        programs = PROGRAMS
    check(case, programs)


def test_what_is_left_out_is_a_case():
    assert ELSEWHERE in map(str, of_rungs(5))
