"""Whole models on the parity ladder, by every program; but full-size ones are compiled by parity/report.py alone: that
takes minutes and 8 GiB, and their layers, small models and whole trainings are compiled here."""

import pytest

from ms_vireid.engine.programs import PROGRAMS
from tests.parity.ladder import check, of_rungs


@pytest.mark.parametrize("case", of_rungs(4), ids=str)
def test_a_model_computes_what_pytorchs_does(case):
    check(case, PROGRAMS if case.small else ("kernels", "operators"))
