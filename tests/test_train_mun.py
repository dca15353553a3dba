"""MUN from the command line on a tiny network: training, its log and checkpoints, evaluation, resuming, refusals."""

import json
import shutil
from importlib import import_module

import numpy as np
import pytest

from ms_vireid import train
from ms_vireid.checkpoints.weights import write_checkpoint
from ms_vireid.command.names import MINDSPORE
from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT
from ms_vireid.engine.checkpoint import load_checkpoint
from ms_vireid.files.checks import unsealed
from ms_vireid.models import MUN
from tests.test_train import agw, command, logged, refused, stopped_at
from torch_ref import train as torch_train

evaluate = import_module("ms_vireid.evaluate")  # the command
TINY = """
model.pretrained=none model.layers=[1,1,1,1] model.width=4 model.ratios=[2,3] augmentation.crop_padding=2
data.name=synthetic
data.image_size=[24,24] data.workers=0 data.synthetic.train_identities=5 data.synthetic.val_identities=1
data.synthetic.test_identities=4 data.synthetic.images_per_camera=1 data.synthetic.image_size=[64,32]
stages.0.epochs=2 schedule.warmup_epochs=1 schedule.milestones=[1] evaluation.trials=1
train.num_identities=2 train.num_instances=2 train.iterations=2 train.log_steps=1 optimizer.backbone_factor=0.1
train.backend=eager
"""
TERMS = {"id", "triplet", "idc", "ia", "ma"}


def arguments(*options):
    return ["--config", CONFIG_ROOT / "mun/sysu.yaml", *TINY.split(), *options]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mun")
    with pytest.MonkeyPatch.context() as patch:
        command(patch, folder, train, *arguments("evaluation.compare_untrained=true"))
    return folder / "runs/mun-sysu"


def test_every_term_is_logged_by_name_and_the_total_is_equation_17(finished):
    rows = logged(finished)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert TERMS | {"loss"} <= rows[0].keys()
    for row in rows:
        total = row["id"] + row["triplet"] + 0.25 * row["idc"] + 0.5 * row["ia"] + 0.008 * row["ma"]
        assert row["loss"] == pytest.approx(total, rel=1e-6)  # float32 sums
    # The warm-up goes on within the epoch; the milestone comes after one epoch.
    assert [row["lr_full"] for row in rows] == pytest.approx([1e-8, 1e-3 + 5e-9, 2e-4, 2e-4])
    assert [row["lr_backbone"] for row in rows] == pytest.approx([1e-8, 1e-4 + 5e-9, 2e-5, 2e-5])
    assert rows[3]["lr_scales"] == rows[3]["lr_full"]
    result = unsealed(json.loads((finished / "result.json").read_text()))
    assert {"trained", "untrained", "chance", "protocol"} == result.keys()


CHOICES = """
augmentation.visible_twice=true augmentation.visible_channel_exchange=0.0 model.beta_shape=cosine model.beta_unit=epoch
model.classified=pooled model.tested=pooled model.batch_norm=each model.pooling_learned=true
stages.0.losses.triplet.normalised=true stages.0.losses.ia.normalised=true evaluation.flip=true
evaluation.renormalise=true
"""


def test_the_other_choices_train_together_and_are_evaluated_again_alike(tmp_path, monkeypatch):
    command(monkeypatch, tmp_path, train, *arguments(*CHOICES.split()))
    folder = tmp_path / "runs/mun-sysu"
    held = load_checkpoint(folder / "model.safetensors").arrays
    assert held["pool.power"] != 3.0
    trained = json.loads((folder / "result.json").read_text())["trained"]
    command(monkeypatch, tmp_path, evaluate, "--checkpoint", folder / "model.safetensors", "--json", "again.json")
    assert json.loads((tmp_path / "again.json").read_text())["mean"] == trained


def test_a_run_keeps_its_prototypes_and_its_scales_in_range(finished):
    held = load_checkpoint(finished / "last.safetensors").arrays
    assert held["prototypes.seen"].all()
    assert held["prototypes.memory"].shape == (3, 4, 128)
    scale = held["generator.cross_learner.scale"]
    assert ((scale >= 1e-3) & (scale <= 1)).all()


@pytest.mark.parametrize("name", ["model.safetensors", "last.safetensors", "inference.safetensors"])
def test_evaluation_needs_no_auxiliary_parts_and_says_so_where_there_are_some(
    finished, monkeypatch, tmp_path, capfd, name
):
    root = json.loads((finished / "run.json").read_text())["data"]["root"]
    checkpoint = load_checkpoint(finished / "model.safetensors")
    kept = {key: value for key, value in checkpoint.arrays.items() if not key.startswith(MUN.TRAINING_ONLY)}
    write_checkpoint(finished / "inference.safetensors", kept, {"config": checkpoint.meta["config"]}, MINDSPORE)
    given = "--checkpoint", finished / name, "--data-root", root, "--json", "again.json"
    command(monkeypatch, tmp_path, evaluate, *given)
    again = json.loads((tmp_path / "again.json").read_text())["mean"]
    assert again == pytest.approx(json.loads((finished / "result.json").read_text())["trained"], abs=1e-12)
    note = "parameters that only training needs are left out (generator, prototypes)"
    assert (note in capfd.readouterr().out) == (name != "inference.safetensors")


def test_parameters_that_no_model_has_are_refused(finished, monkeypatch, tmp_path, capfd):
    checkpoint = load_checkpoint(finished / "model.safetensors")
    held = checkpoint.arrays | {"adversary.weight": np.ones(1, np.float32)}
    write_checkpoint(tmp_path / "foreign.safetensors", held, {"config": checkpoint.meta["config"]}, MINDSPORE)
    error = refused(monkeypatch, tmp_path, capfd, evaluate, "--checkpoint", "foreign.safetensors")
    assert "foreign.safetensors: does not fit the model: not in the model 1 (adversary.weight)" in error


def test_a_stopped_run_resumes_bitwise_with_its_prototypes(finished, tmp_path, monkeypatch):
    options = *arguments("evaluation.compare_untrained=true"), "--output", "stopped"
    stopped_at(monkeypatch, tmp_path, 3, *options)
    shutil.copy(tmp_path / "stopped/last.safetensors", tmp_path / "middle.safetensors")
    command(monkeypatch, tmp_path, train, *options, "--resume", "auto")
    whole, stopped = (load_checkpoint(run / "last.safetensors").arrays for run in (finished, tmp_path / "stopped"))
    assert whole.keys() == stopped.keys()
    for name in whole:
        assert np.array_equal(whole[name], stopped[name]), name
    before = load_checkpoint(tmp_path / "middle.safetensors").arrays["prototypes.memory"]
    assert not np.array_equal(before, whole["prototypes.memory"])


@pytest.mark.parametrize(("recipe", "terms"), [(arguments(), TERMS), (agw(), {"id", "wrt"})], ids=["mun", "agw"])
def test_the_pytorch_mirror_trains_and_resumes_the_same_recipe(tmp_path, monkeypatch, capfd, recipe, terms):
    def lines(*options):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["torch_ref/train.py", *map(str, recipe), *options])
        run(torch_train.main)
        return [line for line in capfd.readouterr().out.splitlines() if line.startswith("epoch")]

    whole = lines("--steps", "4")
    first = lines("--steps", "2", "--output", "half.safetensors")
    assert first + lines("--steps", "2", "--resume", "half.safetensors") == whole
    for line, epoch, step in zip(whole, (1, 1, 2, 2), (1, 2, 3, 4), strict=True):
        assert line.startswith(f"epoch {epoch}/2 step {step}/4 | loss ")
        assert terms <= set(line.split())
