"""Trainings of `parity/report.py --long`, with few steps and people."""

import pytest

from parity import long, report
from tests.test_train import refused
from torch_ref.models import vit as torch_vit

FEW = (
    "model.depth=1 model.embed_dim=32 model.num_heads=2 data.synthetic.train_identities=8 "
    "data.synthetic.images_per_camera=2 model.num_classes=12 train.num_identities=4 "
    "stages.0.epochs=1 stages.1.epochs=1 train.iterations=2"
)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setitem(long.TRAININGS, "PMT", ("pmt/sysu.yaml", FEW.split(), ()))


def test_both_stages_are_trained_alike(few):
    parting = long.part("PMT", "kernels")
    assert len(parting.loss) == 4
    assert long.row("PMT", "kernels", parting).split()[-1] == "ok"


def test_another_epsilon_is_over(few, monkeypatch):
    monkeypatch.setattr(torch_vit, "LAYER_NORM_EPS", 1e-2)
    parting = long.part("PMT", "kernels")
    assert long.row("PMT", "kernels", parting).split()[-1] == "OVER"


def test_what_only_the_ladder_has_is_refused(tmp_path, monkeypatch, capfd):
    error = refused(monkeypatch, tmp_path, capfd, report, "--long", "--rung", "2")
    assert error == "error: --rung is for the ladder, and --long trains instead; leave one of them out"
