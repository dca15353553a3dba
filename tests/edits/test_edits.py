"""An edit of any function, method or layer trains: by every backend as by `eager`, or a line says why not."""

import random

import numpy as np
import pytest
from mindspore import ops

from ms_vireid.optimizers.sgd import SGD
from tests.edits import own_models, runs, sites

GOOD = ("as edited", "refused: ")
OF_A_DAY = {"numba": 1, "graph": 1, "cuda": 1, "ascend": 1}  # edits, by backend
WITH_ALL = OF_A_DAY | {"numba": 5, "graph": 2}


def chosen(config, backend):
    """The edits of a seed; all with --edits all."""
    edits, wanted = sites.edits(), config.getoption("--edits")
    if wanted == "all":
        return edits
    reached = [edit for edit in edits if any(edit.place in runs.reached(run) for run in runs.RUNS)]
    counts = WITH_ALL if config.getoption("--all") else OF_A_DAY
    return random.Random(f"{wanted} {backend}").sample(reached, counts[backend])


def wrong(row):
    return {name: said for name, said in row.items() if name in ("numba", "graph") and not said.startswith(GOOD)}


@pytest.mark.parametrize("backend", ["numba", "graph"])
def test_an_edit_trains_or_a_line_says_why_not(request, backend):
    rows = {edit: runs.judge(runs.run_of(edit), edit, [backend]) for edit in chosen(request.config, backend)}
    assert {str(edit): wrong(row) for edit, row in rows.items() if wrong(row)} == {}


def test_every_function_and_class_is_edited():
    edits = sites.edits()
    assert len(edits) == len(set(map(str, edits))) > 400
    assert {edit.kind for edit in edits} == {
        *("scaled", "constant", "value", "subclass", "hook", "evaluation", "frozen")
    }


@pytest.mark.parametrize("name", list(own_models.MODELS))
def test_a_model_of_ones_own_trains_by_numba_as_by_eager(name):
    assert runs.judge(name, None, ["numba"])["numba"] == "as edited"


@pytest.mark.parametrize("backend", ["numba", "graph"])
def test_what_is_edited_is_told(backend):
    edit = sites.Edit("scaled", "models.vit", "Mlp.construct")
    row = runs.judge("PMT", edit, [backend])
    assert row[backend] == "as edited"
    assert row["effect"] > 0.01


def by_norm(self, part, gradient, scalars, applies):
    """Each weight goes along its gradient, by a length of its own, as in LARS."""
    length = ops.sqrt(ops.square(gradient).sum() + 1e-12)
    self.assign(part.weight, part.weight - 0.01 * gradient / length, applies)


def test_an_update_by_a_weights_norm_gets_each_weight_by_itself(monkeypatch):
    """Buffers of many weights have one norm."""
    monkeypatch.setattr(SGD, "update", by_norm)
    found = {backend: runs.outcome("AGW", backend) for backend in ("eager", "numba", "graph")}
    for backend in ("numba", "graph"):  # by one norm of all weights 0.3
        assert runs.distance(found[backend], found["eager"]) < 0.01
    (line,) = [line for line in found["graph"]["left"] if line.startswith("SGD.update")]
    assert "tests.edits.test_edits.by_norm is called in its place" in line


@pytest.mark.parametrize("backend", ["eager", "graph"])
def test_frozen_weights_train_in_float16(backend):
    """A frozen weight has a copy in float16 too: operators take one type."""
    edit = sites.Edit("frozen", "models.vit", "Attention")
    found = runs.outcome("PMT", backend, edit, amp="float16")
    assert np.isfinite(found["losses"]).all()
    expected = runs.outcome("PMT", "eager", edit)
    assert found["losses"][:, 0] == pytest.approx(expected["losses"][:, 0], rel=0.05)
    assert found["features"] == pytest.approx(expected["features"], abs=0.05)


def test_a_graph_refuses_a_hook_and_says_where():
    edit = sites.Edit("hook", "models.vit", "Mlp")
    assert runs.outcome("PMT", "graph", edit) == {
        "refused": "PMT base.blocks.1.mlp: has a hook, which a compiled graph does not call; give train.backend=eager"
    }
