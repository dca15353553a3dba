"""Whole models on the parity ladder: small ones by every program, full-size ones by the kernels alone, whose tiles and
windows depend on the size. By parity/report.py all are: compiling full-size models takes minutes and 8 GiB, and their
layers, small models and whole trainings are operators and graphs here too."""

import pytest

from ms_vireid.programs.program import OF_DEVICE
from tests.parity.ladder import check, of_rungs

PROGRAMS = OF_DEVICE["CPU"]

# With dropout it is here as well, and takes half a minute each time.
CASES = [case for case in of_rungs(4) if str(case) != "4 pmt_vit_base, gradients"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_model_computes_what_pytorchs_does(case):
    if case.small:
        check(case, PROGRAMS)
    else:
        check(case, ("kernels", "operators") if case.subject.startswith("MUN small") else ("kernels",))
