"""Trainings on the parity ladder, by every program."""

import pytest

from tests.parity.ladder import check, of_rungs


@pytest.mark.parametrize("case", of_rungs(5), ids=str)
def test_a_training_goes_as_in_pytorch(case):
    check(case)
