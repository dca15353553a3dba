"""Trainings of `parity/report.py --long`, with few steps and people."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from parity import long, report
from tests.test_train import refused
from torch_ref.losses import alignment, triplet
from torch_ref.models import vit

PEOPLE = (
    "data.synthetic.train_identities=8",
    "data.synthetic.images_per_camera=2",
    "model.num_classes=12",
    "train.num_identities=4",
)
STAGES = "stages.0.epochs=1", "stages.1.epochs=1", "train.iterations=2"
SMALL = "model.depth=1", "model.embed_dim=32", "model.num_heads=2"
ONE_EPOCH = "stages.0.epochs=1", "schedule.warmup_epochs=0", "schedule.milestones=[]", "train.iterations=2"


@pytest.fixture
def few(monkeypatch):
    for name, (recipe, model, _) in long.TRAININGS.items():
        own = (*(SMALL if name == "PMT" else model), *PEOPLE)
        monkeypatch.setitem(long.TRAININGS, name, (recipe, own, STAGES if name == "PMT" else ONE_EPOCH))


def verdict(name):
    return long.row(name, "numba", long.part(name, "numba")).split()[-1]


def test_both_stages_are_trained_alike(few):
    parting = long.part("PMT", "numba")
    assert len(parting.loss) == 4
    assert long.row("PMT", "numba", parting).split()[-1] == "ok"


@pytest.mark.parametrize(
    ("name", "module", "planted", "wrong"),
    [
        ("PMT", vit, "LAYER_NORM_EPS", lambda eps: 1e-2),
        ("MUN", alignment, "squared_mmd", lambda mmd: lambda *rows: 1.01 * mmd(*rows)),
        ("AGW", triplet, "logarithms", lambda _: SimpleNamespace(softplus=torch.relu)),
    ],
)
def test_a_planted_error_is_over(few, monkeypatch, name, module, planted, wrong):
    monkeypatch.setattr(module, planted, wrong(getattr(module, planted)))
    assert verdict(name) == "OVER"


def parting(ours, theirs):
    return long.Parting(np.full(len(ours), 10.0), np.array(ours), np.array(theirs))


def test_a_training_may_part_as_far_as_pytorch_from_itself_and_a_few_steps_sooner():
    late = [0.0] * 8 + [0.5, 1.0]
    assert parting([0.0] * 3 + [1.9] * 7, late).passed
    assert not parting([0.0] * 2 + [1.9] * 8, late).passed  # six steps sooner
    assert not parting([0.0] * 9 + [4.1], late).passed  # further
    assert not parting([1e-3] + [0.0] * 9, [1.0] * 10).passed  # before anything was updated


def test_what_only_the_ladder_has_is_refused(tmp_path, monkeypatch, capfd):
    error = refused(monkeypatch, tmp_path, capfd, report, "--long", "--rung", "2")
    assert error == "error: --rung is for the ladder, and --long trains instead; leave one of them out"
