"""The parity ladder, every case of it by every backend: here all rungs but those of whole models and trainings."""

from types import SimpleNamespace

import pytest

from ms_vireid.backends.choosing import OF_DEVICE
from ms_vireid.command.errors import InputError
from parity import ladder
from parity.cases import LADDER, RUNGS
from parity.rungs.names import _defined
from tests.parity.ladder import check, of_rungs
from tests.parity.test_processes import kill
from torch_ref import losses

BACKENDS = OF_DEVICE["CPU"]

CASES = of_rungs(*set(RUNGS) - {4, 5})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_mindspore_computes_what_pytorch_computes(case):
    check(case)


def test_backends_have_a_part_on_every_rung_that_computes_and_on_no_other():
    for backend in BACKENDS:
        assert {case.rung for case in LADDER if backend in case.backends} == {2, 3, 4, 5}


def test_case_names_are_told_apart():
    names = [str(case) for case in LADDER]
    assert len(set(names)) == len(names)


def test_every_loss_is_on_the_ladder():
    from parity.equations import LOSSES, MODALITY_LOSSES

    looped = (LOSSES | MODALITY_LOSSES).values()
    of_logits = {"IdentityLoss", "AuxiliaryIdentityLoss", "IdentityConsistencyLoss"}
    built = {type(loss.build(losses, 2)).__name__ for loss in looped} | of_logits
    assert built == {name for name in vars(losses) if name.endswith("Loss")}
    assert _defined(losses) == set()  # the package itself defines nothing that could escape the comparison of modules


def test_a_killed_process_names_the_case_and_what_to_do(monkeypatch):
    cases = [case for case in LADDER if case.rung == 1][:2]
    monkeypatch.setattr(ladder, "_run_task", kill)
    monkeypatch.setattr(ladder, "set_up_for_comparisons", print)
    light = SimpleNamespace(device="CPU", stand_in=False)  # a Side, which a process can read without the ladder
    with pytest.raises(InputError) as error:
        list(ladder._shared_out(cases, light, 2))
    assert f": a process was killed, as Linux does when memory runs out, at {cases[0]} or soon after" in str(
        error.value
    )
    assert "--processes 1 needs less memory" in str(error.value)


def test_a_process_computes_few_cases_of_full_size():
    """It keeps their memory until it ends."""
    tasks = [[case] for case in LADDER if case.rung == 4]
    parts = ladder._parts(tasks)
    assert [task for part in parts for task in part] == tasks
    full = [sum(not case.small for (case,) in part) for part in parts]
    assert len(full) > 2
    assert set(full[:-1]) == {ladder.FULL_TASKS} >= {max(full)}
