"""The converter on files of this project: bit-exact round trips, what it writes, its table and its options."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ms_vireid.checkpoints.weights import read_checkpoint, write_checkpoint
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MINDSPORE, TORCH
from ms_vireid.config import CONFIG_ROOT, check_config, dump_config
from ms_vireid.engine.checkpoint import load_checkpoint, load_model, load_parameters
from ms_vireid.models import MUN, build_model
from ms_vireid.optimizers.build import build_optimizer
from tests.parity.convert_cases import (
    SMALL,
    TRAINING,
    assert_equal,
    assert_same,
    convert,
    images_of,
    ms_features,
    read,
    recipe,
    torch_features,
    worst,
    write,
    write_mindspore,
    write_torch,
    write_weights,
)
from torch_ref.engine.checkpoint import load_checkpoint as load_torch_checkpoint
from torch_ref.engine.checkpoint import load_model as load_torch_model
from torch_ref.engine.checkpoint import load_optimizer as load_torch_optimizer
from torch_ref.models import build_model as build_torch_model
from torch_ref.optimizers.build import build_optimizer as build_torch_optimizer

MODELS = ["pmt", "agw", "mun"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("made", [write_mindspore, write_torch])
def test_a_training_state_goes_to_the_other_framework_and_back_bit_for_bit(monkeypatch, tmp_path, model, made):
    source, there, back = (
        made(tmp_path / "a.safetensors", recipe(model)),
        tmp_path / "b.safetensors",
        tmp_path / "c.safetensors",
    )
    convert(monkeypatch, source, there)
    convert(monkeypatch, there, back)
    assert {read_checkpoint(source).framework, read_checkpoint(there).framework} == {MINDSPORE, TORCH}
    assert_same(source, back)
    assert source.read_bytes() == back.read_bytes()


@pytest.mark.parametrize("model", MODELS)
def test_weights_go_through_every_format_bit_for_bit_and_compute_the_same(monkeypatch, tmp_path, model):
    config = recipe(model)
    module = write_weights(tmp_path / "a.pth", config)
    route = ["a.pth", "b.safetensors", "c.ckpt", "d.safetensors", "e.pt"]
    for source, target in pairwise(route):
        to = ("--to", "pytorch") if target == "d.safetensors" else ()
        convert(monkeypatch, tmp_path / source, tmp_path / target, *to)
    assert_same(tmp_path / "e.pt", tmp_path / "a.pth")
    images = images_of(config)
    for modality in ("visible", "infrared"):
        theirs = torch_features(module, images, modality)
        assert worst(ms_features(tmp_path / "b.safetensors", images, modality), theirs) < 1e-5


def test_a_converted_training_state_loads_in_the_other_framework(monkeypatch, tmp_path):
    config = recipe("pmt")
    source = write_mindspore(tmp_path / "a.safetensors", config)
    convert(monkeypatch, source, tmp_path / "b.safetensors")
    checkpoint = load_torch_checkpoint(tmp_path / "b.safetensors")
    assert {key: checkpoint.meta[key] for key in TRAINING} == TRAINING
    module = build_torch_model(check_config(checkpoint.meta["config"], "test"))
    optimizer = build_torch_optimizer(module, config)
    load_torch_model(module, checkpoint)
    load_torch_optimizer(optimizer, checkpoint)
    moments = optimizer.state[module.base.cls_token]
    assert moments["step"] == TRAINING["step"]
    assert np.array_equal(moments["exp_avg"], load_checkpoint(source).arrays["exp_avg.base.cls_token"])

    convert(monkeypatch, tmp_path / "b.safetensors", tmp_path / "c.ckpt")
    checkpoint = load_checkpoint(tmp_path / "c.ckpt")
    cell = build_model(check_config(checkpoint.meta["config"], "test"))
    load_parameters([*cell.get_parameters(), *build_optimizer(cell, config).state()], checkpoint)
    assert {key: checkpoint.meta[key] for key in TRAINING} == TRAINING


def test_a_pth_holds_the_configuration_and_no_training_state(monkeypatch, capsys, tmp_path):
    config = recipe("pmt")
    convert(monkeypatch, write_mindspore(tmp_path / "a.safetensors", config), tmp_path / "a.pth")
    assert "64 dropped" in capsys.readouterr().out
    held = torch.load(tmp_path / "a.pth", weights_only=True)
    assert held["model"].keys() == build_torch_model(config).state_dict().keys()
    assert held.keys() == {"format", "config", "data_checksum", "model"}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_without_the_parts_that_only_training_needs_make_an_inference_checkpoint(monkeypatch, tmp_path, suffix):
    config = recipe("mun")
    state = write_weights(tmp_path / "all.pth", config).state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith(MUN.TRAINING_ONLY)}
    assert len(kept) < len(state)
    write(tmp_path / f"kept{suffix}", kept, {"config": dump_config(config), "epoch": 4}, TORCH)
    convert(monkeypatch, tmp_path / f"kept{suffix}", tmp_path / "kept.ckpt")
    checkpoint = load_checkpoint(tmp_path / "kept.ckpt")
    assert not any(name.startswith(MUN.TRAINING_ONLY) for name in checkpoint.arrays)
    cell = build_model(config, inference=True)
    assert load_model(cell, checkpoint) == []
    np.testing.assert_array_equal(cell.shared.layer2[0].conv1.weight.asnumpy(), kept["shared.layer2.0.conv1.weight"])

    kept["generator.cross_learner.scale"] = state["generator.cross_learner.scale"]  # one of them asks for all
    write(tmp_path / f"most{suffix}", kept, {"config": dump_config(config), "epoch": 4}, TORCH)
    with pytest.raises(InputError, match=r"does not fit mun's network: .*generator\..* is missing"):
        convert(monkeypatch, tmp_path / f"most{suffix}", tmp_path / "most.ckpt")


@pytest.mark.parametrize("framework", [MINDSPORE, TORCH])
def test_a_foreign_safetensors_has_the_names_that_fit(monkeypatch, tmp_path, framework):
    config = recipe("pmt", "model.num_classes=9")
    made = {MINDSPORE: write_mindspore, TORCH: write_torch}[framework](tmp_path / "whole.safetensors", config)
    save_file(read(made).weights, tmp_path / "a.safetensors")
    convert(monkeypatch, tmp_path / "a.safetensors", tmp_path / "b.safetensors", *SMALL["pmt"])
    other = read_checkpoint(tmp_path / "b.safetensors")
    assert other.framework == (TORCH if framework == MINDSPORE else MINDSPORE)
    assert other.meta["config"]["model"]["num_classes"] == 9  # the classifier's
    convert(monkeypatch, tmp_path / "b.safetensors", tmp_path / "c.safetensors")
    assert_equal(read(tmp_path / "c.safetensors").weights, read(made).weights)


def test_a_dry_run_says_what_becomes_of_every_key_and_writes_nothing(monkeypatch, capsys, tmp_path):
    held = read_checkpoint(write_mindspore(tmp_path / "one.safetensors", recipe("pmt")))
    memories = {"devices.prototypes.memory": np.zeros((2, 3), np.float32)}  # as each of two processes leaves them
    write_checkpoint(tmp_path / "last.safetensors", held.arrays | memories, held.meta | {"devices": 2}, MINDSPORE)
    convert(monkeypatch, tmp_path / "last.safetensors", tmp_path / "a.safetensors", "--dry-run")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "base.norm.gamma [16] base.norm.weight [16] renamed" in lines
    assert "base.cls_token [1, 1, 16] base.cls_token [1, 1, 16] copied" in lines
    assert "bottleneck.num_batches_tracked [] filled: 0" in lines
    assert "exp_avg.base.norm.gamma [16] exp_avg.base.norm.weight [16] renamed" in lines
    assert "devices.prototypes.memory [2, 3] dropped: of several processes" in lines
    assert lines[-2] == "101 keys: 63 copied, 36 renamed, 1 filled, 1 dropped"
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    ("to", "fate"), [("pytorch", "NAME [] copied"), ("mindspore", "dropped: 0, which the way back fills in")]
)
def test_a_counter_of_no_batches_is_in_the_table(monkeypatch, capsys, tmp_path, to, fate):
    config = recipe("pmt")
    write(tmp_path / "a.pth", build_torch_model(config).state_dict(), {"config": dump_config(config)}, TORCH)
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "b.safetensors", "--to", to, "--dry-run")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    name = "bottleneck.num_batches_tracked"
    assert f"{name} [] {fate.replace('NAME', name)}" in lines


def test_an_existing_target_is_kept_unless_asked(monkeypatch, tmp_path):
    write_weights(tmp_path / "a.pth", recipe("pmt"))
    target = tmp_path / "a.ckpt"
    target.write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        convert(monkeypatch, tmp_path / "a.pth", target)
    assert target.read_text() == "mine"
    convert(monkeypatch, tmp_path / "a.pth", target, "--overwrite")
    assert load_checkpoint(target).meta["epoch"] == 4


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (["nowhere/a.ckpt"], "its folder does not exist"),
        (["a.onnx"], "its suffix is none of"),
        (["a.pth"], "is the file to convert"),
        (["folder.ckpt"], "is a folder"),
        (["b.pth", "--to", "mindspore"], "--to mindspore: a .pth has PyTorch's names"),
        (["b.ckpt", "--to", "pytorch"], "--to pytorch: a .ckpt has MindSpore's names"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_the_work(monkeypatch, tmp_path, target, words):
    (tmp_path / "a.pth").write_text("not read")
    (tmp_path / "folder.ckpt").mkdir()
    with pytest.raises(InputError, match=words):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / target[0], *target[1:], "--overwrite")


def test_the_configuration_of_the_file_wins_and_another_model_is_refused(monkeypatch, tmp_path):
    write_weights(tmp_path / "a.pth", recipe("pmt"))
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "b.safetensors", "optimizer.lr=0.5")
    assert load_checkpoint(tmp_path / "b.safetensors").meta["config"]["optimizer"]["lr"] == 0.5
    with pytest.raises(InputError, match=r"made with another model.num_heads than the command line"):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / "c.ckpt", "model.num_heads=4")
    with pytest.raises(InputError, match=r"--config .*sysu.yaml: .*a.pth carries its recipe; leave it out"):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / "c.ckpt", "--config", CONFIG_ROOT / "pmt/sysu.yaml")
    assert not (tmp_path / "c.ckpt").exists()


def test_every_key_that_does_not_fit_is_named_and_nothing_is_written(monkeypatch, tmp_path):
    held = read(write_torch(tmp_path / "a.safetensors", recipe("pmt")))
    tensors = held.weights | held.states
    del tensors["base.cls_token"], tensors["exp_avg.base.pos_embed"]
    tensors["base.norm.bias"] = torch.zeros(3)
    tensors["base.fancy"] = torch.zeros(2)
    tensors["bottleneck.num_batches_tracked"] = torch.zeros(2)
    tensors["exp_avg_sq.base.norm.weight"] = torch.zeros(2)
    write(tmp_path / "b.safetensors", tensors, held.meta, TORCH)
    with pytest.raises(InputError, match="does not fit pmt's network: 6") as error:
        convert(monkeypatch, tmp_path / "b.safetensors", tmp_path / "b.ckpt")
    for part in (
        "base.cls_token is missing",
        "base.fancy is not in the network",
        "base.norm.bias is [3], the network's is [16]",
        "bottleneck.num_batches_tracked is int64 [2], not one int64",
        "exp_avg.base.pos_embed is missing",
        "exp_avg_sq.base.norm.weight is [2], the optimizer's is [16]",
    ):
        assert part in str(error.value)
    assert not (tmp_path / "b.ckpt").exists()


def test_the_command_itself_ends_in_one_line(tmp_path):
    write_weights(tmp_path / "a.pth", recipe("pmt"))
    command = [sys.executable, "-m", "parity.convert", str(tmp_path / "a.pth")]
    done = subprocess.run([*command, str(tmp_path / "a.ckpt")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'a.ckpt'}"
    done = subprocess.run([*command, str(tmp_path / "a.onnx")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
