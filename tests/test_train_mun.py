"""MUN from the command line on a tiny network: training, its log and checkpoints, evaluation, resuming, refusals."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest

from ms_vireid import evaluate, train
from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT
from ms_vireid.engine.checkpoint import load_checkpoint
from ms_vireid.files.weights import MINDSPORE, write_checkpoint
from ms_vireid.models import MUN
from torch_ref import train as torch_train

TINY = """
model.layers=[1,1,1,1] model.width=4 model.ratios=[2,3] augmentation.crop_padding=2 data.name=synthetic
data.image_size=[24,24] data.workers=0 data.synthetic.train_identities=5 data.synthetic.val_identities=1
data.synthetic.test_identities=4 data.synthetic.images_per_camera=1 data.synthetic.image_size=[64,32]
stages.0.epochs=2 schedule.warmup_epochs=1 schedule.milestones=[1] evaluation.trials=1
train.num_identities=2 train.num_instances=2 train.iterations=2 train.log_steps=1 optimizer.backbone_factor=0.1
"""
OPTIONS = TINY.split()
TERMS = {"id", "triplet", "idc", "ia", "ma"}


def command(monkeypatch, folder, module, *arguments):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", [module.__name__, *map(str, arguments)])
    run(module.main)


def train_mun(monkeypatch, folder, *arguments, recipe="mun/sysu.yaml"):
    command(monkeypatch, folder, train, "--device", "CPU", "--config", CONFIG_ROOT / recipe, *OPTIONS, *arguments)


def refused(capfd, monkeypatch, folder, module, *arguments):
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, folder, module, *arguments)
    error = capfd.readouterr().err.splitlines()
    assert (stopped.value.code, len(error)) == (2, 1)
    return error[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mun")
    with pytest.MonkeyPatch.context() as patch:
        train_mun(patch, folder, "evaluation.compare_untrained=true")
    return folder / "runs/sysu"


def test_every_term_is_logged_by_name_and_the_total_is_equation_17(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert TERMS | {"loss"} <= rows[0].keys()
    for row in rows:
        total = row["id"] + row["triplet"] + 0.25 * row["idc"] + 0.5 * row["ia"] + 0.008 * row["ma"]
        assert row["loss"] == pytest.approx(total, rel=1e-6)  # float32 sums
    # The warm-up goes on within the epoch; the milestone comes after one epoch.
    assert [row["lr_full"] for row in rows] == pytest.approx([1e-8, 1e-3 + 5e-9, 2e-4, 2e-4])
    assert [row["lr_backbone"] for row in rows] == pytest.approx([1e-8, 1e-4 + 5e-9, 2e-5, 2e-5])
    assert rows[3]["lr_scales"] == rows[3]["lr_full"]
    result = json.loads((finished / "result.json").read_text())
    assert {"trained", "untrained", "chance", "protocol"} == result.keys()


def test_a_run_keeps_its_prototypes_and_its_scales_in_range(finished):
    held = load_checkpoint(finished / "last.safetensors").arrays
    assert held["prototypes.seen"].all()
    assert held["prototypes.memory"].shape == (3, 4, 128)
    scale = held["generator.cross_learner.scale"]
    assert ((scale >= 1e-3) & (scale <= 1)).all()


@pytest.mark.parametrize("name", ["model.safetensors", "last.safetensors"])
def test_evaluation_needs_no_auxiliary_parts_and_says_so(finished, monkeypatch, tmp_path, capfd, name):
    command(monkeypatch, tmp_path, evaluate, "--checkpoint", finished / name, "--json", "again.json")
    again = json.loads((tmp_path / "again.json").read_text())["mean"]
    assert again == pytest.approx(json.loads((finished / "result.json").read_text())["trained"], abs=1e-12)
    note = "parameters that only training needs are left out (generator, prototypes)"
    assert note in capfd.readouterr().out


def test_a_checkpoint_without_auxiliary_parts_evaluates_the_same(finished, monkeypatch, tmp_path, capfd):
    checkpoint = load_checkpoint(finished / "model.safetensors")
    kept = {name: value for name, value in checkpoint.arrays.items() if not name.startswith(MUN.TRAINING_ONLY)}
    root = json.loads((finished / "run.json").read_text())["data"]["root"]
    write_checkpoint(tmp_path / "inference.safetensors", kept, {"config": checkpoint.meta["config"]}, MINDSPORE)
    command(
        monkeypatch,
        tmp_path,
        evaluate,
        "--checkpoint",
        "inference.safetensors",
        "--data-root",
        root,
        "--json",
        "again.json",
    )
    again = json.loads((tmp_path / "again.json").read_text())["mean"]
    assert again == pytest.approx(json.loads((finished / "result.json").read_text())["trained"], abs=1e-12)
    assert "left out" not in capfd.readouterr().out


def test_parameters_that_no_model_has_are_refused(finished, monkeypatch, tmp_path, capfd):
    checkpoint = load_checkpoint(finished / "model.safetensors")
    held = checkpoint.arrays | {"adversary.weight": np.ones(1, np.float32)}
    write_checkpoint(tmp_path / "foreign.ckpt", held, {"config": checkpoint.meta["config"]}, MINDSPORE)
    error = refused(capfd, monkeypatch, tmp_path, evaluate, "--checkpoint", "foreign.ckpt")
    assert "foreign.ckpt: does not fit the model: not in the model 1 (adversary.weight)" in error


@pytest.mark.parametrize(
    "options", [[], ["model.memory=identity"], ["model.intermediate=mixed"]], ids=["slots", "identity", "mixed"]
)
def test_a_stopped_run_resumes_bitwise_with_its_prototypes(tmp_path, monkeypatch, options):
    from ms_vireid.engine.trainer import Trainer

    train_mun(monkeypatch, tmp_path, *options, "--output", "whole")
    log = Trainer._log

    def interrupted(self, *arguments):
        log(self, *arguments)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_log", interrupted)
        with pytest.raises(SystemExit):
            train_mun(patch, tmp_path, *options, "--output", "stopped")
    shutil.copy(tmp_path / "stopped/last.safetensors", tmp_path / "middle.safetensors")
    train_mun(monkeypatch, tmp_path, *options, "--output", "stopped", "--resume", "auto")
    whole, stopped = (load_checkpoint(tmp_path / name / "last.safetensors").arrays for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    for name in whole:
        assert np.array_equal(whole[name], stopped[name]), name
    before = load_checkpoint(tmp_path / "middle.safetensors").arrays["prototypes.memory"]
    assert not np.array_equal(before, whole["prototypes.memory"])


@pytest.mark.parametrize(
    ("recipe", "terms"),
    [
        ("ablations/mun-table-1/b.yaml", {"id", "triplet"}),
        ("ablations/mun-table-1/aux.yaml", {"id", "triplet", "id_a"}),
        ("ablations/mun-table-1/aux-idc-ia.yaml", {"id", "triplet", "idc", "ia"}),
        ("ablations/mun-table-2/x.yaml", TERMS),
        ("ablations/mun-table-2/syncretic.yaml", TERMS),
        ("ablations/mun-table-3/neither.yaml", TERMS),
        ("ablations/mun-table-3/prototype.yaml", TERMS),
        ("ablations/mun-table-5/9-aux-idc-ia-ma.yaml", TERMS),
    ],
)
def test_rows_of_the_ablations_train_with_their_terms(tmp_path, monkeypatch, recipe, terms):
    train_mun(monkeypatch, tmp_path, "stages.0.epochs=1", "train.iterations=1", "--output", "run", recipe=recipe)
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    beside = {"epoch", "step", "loss", "images_per_second"}
    assert {key for key in row if not key.startswith("lr_")} - beside == terms
    names = load_checkpoint(tmp_path / "run/model.safetensors").arrays.keys()
    assert any(name.startswith("prototypes.") for name in names) == ("ma" in terms and "neither" not in recipe)
    assert ("auxiliary_classifier.weight" in names) == ("id_a" in terms)


def test_the_pytorch_mirror_trains_and_resumes_the_same_recipe(tmp_path, monkeypatch, capfd):
    recipe = ["--config", CONFIG_ROOT / "mun/sysu.yaml", *OPTIONS]
    command(monkeypatch, tmp_path, torch_train, *recipe, "--steps", "4")
    whole = capfd.readouterr().out.splitlines()[-4:]
    command(monkeypatch, tmp_path, torch_train, *recipe, "--steps", "2", "--output", "half.safetensors")
    command(monkeypatch, tmp_path, torch_train, *recipe, "--steps", "2", "--resume", "half.safetensors")
    resumed = [line for line in capfd.readouterr().out.splitlines() if line.startswith("epoch")]
    assert resumed == whole
    assert all(re.search(r"loss \d.* id \d.* triplet \d.* idc \d.* ia \d.* ma \d", line) for line in whole)


def test_sizes_that_the_generator_cannot_pool_are_refused_before_training(tmp_path, monkeypatch, capfd):
    arguments = ["--config", CONFIG_ROOT / "mun/sysu.yaml", "data.name=synthetic", "data.image_size=[256,128]"]
    error = refused(capfd, monkeypatch, tmp_path, train, *arguments)
    assert "do not divide the feature maps of 64x32" in error
    assert error.endswith("sides must be multiples of 48, as [240, 144]")
