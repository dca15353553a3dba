"""The parity ladder, every case of it."""

import pytest

from parity.cases import LADDER, RUNGS, run
from parity.rungs.names import _defined
from torch_ref import losses


@pytest.mark.parametrize("case", LADDER, ids=str)
def test_mindspore_computes_what_pytorch_computes(case):
    outcome = run(case)
    over = [str(comparison) for comparison in outcome.comparisons if not comparison.passed]
    assert not over, f"{len(over)} of {len(outcome.comparisons)} over tolerance, the first: {over[0]}"


def test_case_names_are_told_apart():
    names = [str(case) for case in LADDER]
    assert len(set(names)) == len(names)


def test_every_rung_has_cases():
    assert {case.rung for case in LADDER} == set(RUNGS)


def test_every_loss_is_on_the_ladder():
    from parity.equations import LOSSES, MODALITY_LOSSES

    looped = (LOSSES | MODALITY_LOSSES).values()
    built = {type(loss.build(losses, 2)).__name__ for loss in looped} | {"IdentityLoss", "IdentityConsistencyLoss"}
    assert built == {name for name in losses.__all__ if name.endswith("Loss")}
    assert _defined(losses) == set()  # the package itself defines nothing that could escape the comparison of modules
