"""The converter on files of this project: bit-exact round trips, what it writes, its table and its options."""

import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, check_config, dump_config
from ms_vireid.engine.checkpoint import load_checkpoint, load_model, load_parameters, save_checkpoint
from ms_vireid.engine.optimizer import build_optimizer
from ms_vireid.models import MUN, build_model
from tests.parity.convert_cases import (
    SMALL,
    TRAINING,
    assert_same,
    convert,
    images_of,
    ms_features,
    random_state_dict,
    recipe,
    torch_features,
    worst,
    write_training_ckpt,
    write_training_pth,
)
from torch_ref.engine.checkpoint import load_checkpoint as load_torch_checkpoint
from torch_ref.engine.checkpoint import load_model as load_torch_model
from torch_ref.engine.checkpoint import load_optimizer as load_torch_optimizer
from torch_ref.engine.checkpoint import save_checkpoint as save_torch_checkpoint
from torch_ref.engine.optimizer import build_optimizer as build_torch_optimizer
from torch_ref.models import build_model as build_torch_model

MODELS = ["pmt", "agw", "mun"]


def read_ckpt(path):
    held = load_checkpoint(path)
    return held.arrays, held.meta


def read_pth(path):
    return torch.load(path, weights_only=True)


def weights_pth(path, config):
    module = build_torch_model(config)
    module.load_state_dict(random_state_dict(module))
    save_torch_checkpoint(path, module.state_dict(), {"config": dump_config(config), "epoch": 4})
    return module


@pytest.mark.parametrize("model", MODELS)
def test_a_training_state_goes_to_torch_and_back_bit_for_bit(monkeypatch, tmp_path, model):
    write_training_ckpt(tmp_path / "last.ckpt", recipe(model))
    convert(monkeypatch, tmp_path / "last.ckpt", tmp_path / "last.pth")
    convert(monkeypatch, tmp_path / "last.pth", tmp_path / "back.ckpt")
    before, meta = read_ckpt(tmp_path / "last.ckpt")
    after, meta_after = read_ckpt(tmp_path / "back.ckpt")
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    meta_after.pop("torch")
    assert meta_after == meta


@pytest.mark.parametrize("model", MODELS)
def test_a_training_state_goes_to_mindspore_and_back_bit_for_bit(monkeypatch, tmp_path, model):
    write_training_pth(tmp_path / "last.pth", recipe(model))
    convert(monkeypatch, tmp_path / "last.pth", tmp_path / "last.ckpt")
    convert(monkeypatch, tmp_path / "last.ckpt", tmp_path / "back.pth")
    assert_same(read_pth(tmp_path / "back.pth"), read_pth(tmp_path / "last.pth"))


@pytest.mark.parametrize("model", MODELS)
def test_weights_go_through_every_format_and_back_bit_for_bit(monkeypatch, tmp_path, model):
    weights_pth(tmp_path / "a.pth", recipe(model))
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "b.safetensors")
    convert(monkeypatch, tmp_path / "b.safetensors", tmp_path / "c.ckpt")
    convert(monkeypatch, tmp_path / "c.ckpt", tmp_path / "d.safetensors")
    convert(monkeypatch, tmp_path / "d.safetensors", tmp_path / "e.pt")
    assert_same(read_pth(tmp_path / "e.pt"), read_pth(tmp_path / "a.pth"))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_without_the_parts_that_only_training_needs_make_an_inference_checkpoint(monkeypatch, tmp_path, suffix):
    config = recipe("mun")
    state = weights_pth(tmp_path / "all.pth", config).state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith(MUN.TRAINING_ONLY)}
    assert len(kept) < len(state)
    save_torch_checkpoint(tmp_path / "kept.pth", kept, {"config": dump_config(config), "epoch": 4})
    source = tmp_path / f"again.{suffix}"
    convert(monkeypatch, tmp_path / "kept.pth", source)
    convert(monkeypatch, source, tmp_path / "kept.ckpt")
    checkpoint = load_checkpoint(tmp_path / "kept.ckpt")
    assert not any(name.startswith(MUN.TRAINING_ONLY) for name in checkpoint.arrays)
    cell = build_model(config, inference=True)
    assert load_model(cell, checkpoint) == []
    np.testing.assert_array_equal(cell.shared.layer2[0].conv1.weight.asnumpy(), kept["shared.layer2.0.conv1.weight"])


def test_one_of_the_parts_that_only_training_needs_asks_for_all(monkeypatch, tmp_path):
    config = recipe("mun")
    state = weights_pth(tmp_path / "all.pth", config).state_dict()
    del state["generator.cross_learner.scale"]
    save_torch_checkpoint(tmp_path / "most.pth", state, {"config": dump_config(config), "epoch": 4})
    with pytest.raises(InputError, match=r"generator\.cross_learner\.scale is missing"):
        convert(monkeypatch, tmp_path / "most.pth", tmp_path / "most.ckpt")


def test_a_converted_training_state_loads_in_the_other_framework(monkeypatch, tmp_path):
    config = recipe("pmt")
    write_training_ckpt(tmp_path / "last.ckpt", config)
    convert(monkeypatch, tmp_path / "last.ckpt", tmp_path / "last.pth")
    checkpoint = load_torch_checkpoint(tmp_path / "last.pth")
    assert {key: checkpoint.meta[key] for key in TRAINING} == TRAINING
    module = build_torch_model(check_config(checkpoint.meta["config"], "test"))
    optimizer = build_torch_optimizer(module, config)
    load_torch_model(module, checkpoint)
    load_torch_optimizer(optimizer, checkpoint)
    moments = optimizer.state[module.base.cls_token]
    assert moments["step"] == TRAINING["step"]
    assert np.array_equal(moments["exp_avg"], read_ckpt(tmp_path / "last.ckpt")[0]["exp_avg.base.cls_token"])

    convert(monkeypatch, tmp_path / "last.pth", tmp_path / "back.ckpt")
    checkpoint = load_checkpoint(tmp_path / "back.ckpt")
    cell = build_model(check_config(checkpoint.meta["config"], "test"))
    load_parameters([*cell.get_parameters(), *build_optimizer(cell, config).state()], checkpoint)
    assert {key: checkpoint.meta[key] for key in TRAINING} == TRAINING


@pytest.mark.parametrize("model", MODELS)
def test_both_frameworks_compute_the_same_from_the_files(monkeypatch, tmp_path, model):
    config = recipe(model)
    module = weights_pth(tmp_path / "a.pth", config)
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "a.ckpt")
    images = images_of(config)
    for modality in ("visible", "infrared"):
        theirs = torch_features(module, images, modality)
        assert worst(ms_features(tmp_path / "a.ckpt", images, modality), theirs) < 1e-5


def test_safetensors_hold_torch_names_and_the_configuration_and_no_training_state(monkeypatch, capsys, tmp_path):
    config = recipe("pmt")
    write_training_ckpt(tmp_path / "last.ckpt", config)
    convert(monkeypatch, tmp_path / "last.ckpt", tmp_path / "a.safetensors")
    printed = capsys.readouterr().out
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(file.keys()) == set(build_torch_model(config).state_dict())
        assert '"embed_dim": 16' in file.metadata()["ms_vireid"]
        assert '"step"' not in file.metadata()["ms_vireid"]
    assert "dropped" in printed
    convert(monkeypatch, tmp_path / "a.safetensors", tmp_path / "b.ckpt")
    assert "step" not in load_checkpoint(tmp_path / "b.ckpt").meta


def test_safetensors_with_mindspore_names_are_read(monkeypatch, tmp_path):
    config = recipe("pmt")
    write_training_ckpt(tmp_path / "a.ckpt", config)
    weights = {
        p.name: torch.from_numpy(load_checkpoint(tmp_path / "a.ckpt").arrays[p.name])
        for p in build_model(config).get_parameters()
    }
    save_file(weights, tmp_path / "a.safetensors")
    convert(monkeypatch, tmp_path / "a.safetensors", tmp_path / "b.pth", *SMALL["pmt"])
    held = read_pth(tmp_path / "b.pth")
    assert torch.equal(held["model"]["base.norm.weight"], weights["base.norm.gamma"])
    assert held["model"]["bottleneck.num_batches_tracked"] == 0
    assert held["config"]["model"]["num_classes"] == 395


def test_a_dry_run_says_what_becomes_of_every_key_and_writes_nothing(monkeypatch, capsys, tmp_path):
    write_training_ckpt(tmp_path / "last.ckpt", recipe("pmt"))
    convert(monkeypatch, tmp_path / "last.ckpt", tmp_path / "a.pth", "--dry-run")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "base.norm.gamma [16] base.norm.weight [16] renamed" in lines
    assert "base.cls_token [1, 1, 16] base.cls_token [1, 1, 16] copied" in lines
    assert "bottleneck.num_batches_tracked [] filled: 0" in lines
    assert "exp_avg.base.norm.gamma [16] exp_avg.base.norm.weight [16] renamed" in lines
    assert lines[-2] == "100 keys: 63 copied, 36 renamed, 1 filled"
    assert not (tmp_path / "a.pth").exists()


def test_an_existing_target_is_kept_unless_asked(monkeypatch, tmp_path):
    weights_pth(tmp_path / "a.pth", recipe("pmt"))
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
        ("nowhere/a.ckpt", "its folder does not exist"),
        ("a.onnx", "its suffix is none of"),
        ("a.pth", "is the file to convert"),
        ("folder.ckpt", "is a folder"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_the_work(monkeypatch, tmp_path, target, words):
    (tmp_path / "a.pth").write_text("not read")
    (tmp_path / "folder.ckpt").mkdir()
    with pytest.raises(InputError, match=words):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / target, "--overwrite")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
def test_a_write_that_fails_leaves_what_was_there(monkeypatch, tmp_path, suffix):
    weights_pth(tmp_path / "a.pth", recipe("pmt"))
    target = tmp_path / f"b{suffix}"
    target.write_text("earlier")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match=r"No space left on device.*intact"):
        convert(monkeypatch, tmp_path / "a.pth", target, "--overwrite")
    assert target.read_text() == "earlier"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.pth", target.name])


def test_the_configuration_of_the_file_wins_and_another_model_is_refused(monkeypatch, tmp_path):
    config = recipe("pmt")
    weights_pth(tmp_path / "a.pth", config)
    convert(monkeypatch, tmp_path / "a.pth", tmp_path / "b.ckpt", "optimizer.lr=0.5")
    assert load_checkpoint(tmp_path / "b.ckpt").meta["config"]["optimizer"]["lr"] == 0.5
    with pytest.raises(InputError, match=r"made with another model.num_heads than the command line"):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / "c.ckpt", "model.num_heads=4")
    with pytest.raises(InputError, match=r"made with another .*model.embed_dim.* than .*sysu.yaml"):
        convert(monkeypatch, tmp_path / "a.pth", tmp_path / "c.ckpt", "--config", CONFIG_ROOT / "pmt/sysu.yaml")
    assert not (tmp_path / "c.ckpt").exists()


def test_every_key_that_does_not_fit_is_named_and_nothing_is_written(monkeypatch, tmp_path):
    config = recipe("pmt")
    write_training_pth(tmp_path / "a.pth", config)
    content = read_pth(tmp_path / "a.pth")
    content["model"].pop("base.cls_token")
    content["model"]["base.norm.bias"] = torch.zeros(3)
    content["model"]["base.fancy"] = torch.zeros(2)
    content["model"]["bottleneck.num_batches_tracked"] = torch.zeros(2)
    index = content["optimizer"]["param_groups"][0]["param_names"].index("base.pos_embed")
    content["optimizer"]["state"][content["optimizer"]["param_groups"][0]["params"][index]].pop("exp_avg")
    torch.save(content, tmp_path / "b.pth")
    with pytest.raises(InputError, match="does not fit pmt's network: 5") as error:
        convert(monkeypatch, tmp_path / "b.pth", tmp_path / "b.ckpt")
    for part in (
        "base.cls_token is missing",
        "base.fancy is not in the network",
        "base.norm.bias is [3], the network's is [16]",
        "bottleneck.num_batches_tracked is float32 [2], not one int64",
        "exp_avg.base.pos_embed is missing",
    ):
        assert part in str(error.value)
    assert not (tmp_path / "b.ckpt").exists()


def test_the_command_itself_ends_in_one_line(tmp_path):
    weights_pth(tmp_path / "a.pth", recipe("pmt"))
    command = [sys.executable, "-m", "parity.convert", str(tmp_path / "a.pth")]
    done = subprocess.run([*command, str(tmp_path / "a.ckpt")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'a.ckpt'}"
    done = subprocess.run([*command, str(tmp_path / "a.onnx")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_ckpt_without_a_configuration_takes_its_layout_s(monkeypatch, tmp_path):
    cell = build_model(recipe("pmt", "model.num_classes=9"))
    save_checkpoint(tmp_path / "a.ckpt", [ms.Parameter(p.value(), name=p.name) for p in cell.get_parameters()], {})
    convert(monkeypatch, tmp_path / "a.ckpt", tmp_path / "a.pth", *SMALL["pmt"])
    assert read_pth(tmp_path / "a.pth")["config"]["model"]["num_classes"] == 9
