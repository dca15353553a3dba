"""The parity ladder, every case of it by every program; but full-size models are compiled by parity/report.py alone:
that takes minutes and 8 GiB, and their layers, small models and whole trainings are compiled here."""

import pytest

from ms_vireid.engine.programs import PROGRAMS
from parity.cases import LADDER, ONCE, RUNGS, programs_of_device, run
from parity.rungs.names import _defined
from torch_ref import losses


def programs(case):
    return PROGRAMS if case.small or case.rung != 4 else ("kernels", "operators")


@pytest.mark.parametrize("case", LADDER, ids=str)
def test_mindspore_computes_what_pytorch_computes(case):
    outcome = run(case, programs(case))
    over = [f"{program} {c}" for program, made in outcome.results.items() for c in made if not c.passed]
    assert not over, f"{len(over)} of {len(outcome.comparisons)} over tolerance, the first: {over[0]}"
    assert set(outcome.results) == (set(programs(case)) if case.programs else {ONCE})


def test_a_cpu_has_all_programs():
    assert programs_of_device() == PROGRAMS


def test_programs_have_a_part_on_every_rung_that_computes_and_on_no_other():
    assert {case.rung for case in LADDER if case.programs} == {2, 3, 4, 5}
    assert {case.rung for case in LADDER if "kernels" in case.programs} == {2, 4, 5}


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
