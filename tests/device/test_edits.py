"""Edits of models, losses and optimisers, and models of one's own, by the backends of a GPU and an Ascend: as by
`eager` there. `python -m parity.stand_in gpu python -m tests.edits.table --device GPU` tries all."""

import pytest

from tests.edits.test_edits import GOOD, chosen

BACKENDS = {"cuda": "worker", "graph": "worker", "ascend": "ascend_worker"}  # the second is a GPU's
# What kernels of a GPU once passed over, in a whole, in a block, in a loss and in an update.
PASSED_OVER = {
    "PMT": ("scaled: models.vit.Mlp.construct", "evaluation: models.vit.Mlp"),
    "AGW": ("subclass: models.layers.GeM", "frozen: models.resnet.Bottleneck"),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_an_edit_trains_or_a_line_says_why_not(request, name):
    from tests.edits import runs

    worker, backend = request.getfixturevalue(BACKENDS[name]), "graph" if name == "ascend" else name
    for edit in chosen(request.config, name):
        row = worker.do("edited", runs.run_of(edit), str(edit), backend)
        assert row.get(backend, "as edited").startswith(GOOD), (str(edit), row)


@pytest.mark.parametrize(("run", "edit"), [(run, edit) for run, edits in PASSED_OVER.items() for edit in edits])
def test_a_kernel_passes_over_no_edit(worker, run, edit):
    row = worker.do("edited", run, edit, "cuda")
    assert row["effect"] > 1e-4
    assert row["cuda"] == "as edited"


@pytest.mark.parametrize("name", ["Excited", "Gated"])
def test_a_model_of_ones_own_trains_by_cuda_as_by_eager(worker, name):
    assert worker.do("edited", name, "", "cuda")["cuda"] == "as edited"
