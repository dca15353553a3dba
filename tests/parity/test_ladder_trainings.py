"""Trainings on the parity ladder, by every program; by the kernels alone where layers, losses and another training are
operators and graphs here already. `parity/report.py` has them all."""

import pytest

from ms_vireid.programs.prepare import PROGRAMS
from tests.parity.ladder import check, of_rungs

ELSEWHERE = "5 AGW, float16"  # whose parts MUN has, too


@pytest.mark.parametrize("case", [case for case in of_rungs(5) if str(case) != ELSEWHERE], ids=str)
def test_a_training_goes_as_in_pytorch(case):
    is_of_choices = case.training and case.subject.startswith("MUN choices")
    check(case, ("kernels",) if is_of_choices else PROGRAMS)


def test_what_is_left_out_is_a_case():
    assert ELSEWHERE in map(str, of_rungs(5))
