"""What the tests of the converter share: small models, files of them, and the command in this process."""

import sys
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import torch

from ms_vireid.checkpoints.state_dict import read_state_dict
from ms_vireid.command.names import TORCH
from ms_vireid.config import CONFIG_ROOT, check_config, dump_config, load_config
from ms_vireid.engine.checkpoint import load_checkpoint, load_model, save_checkpoint
from ms_vireid.models import build_model
from ms_vireid.optimizers.build import build_optimizer
from parity import convert as command
from parity.files import write as write_arrays
from torch_ref.engine.checkpoint import save_checkpoint as save_torch_checkpoint
from torch_ref.models import build_model as build_torch_model
from torch_ref.optimizers.build import build_optimizer as build_torch_optimizer

SMALL = {
    "pmt": [
        "data.image_size=[40,24]",
        "model.patch_size=8",
        "model.stride=6",
        "model.embed_dim=16",
        "model.depth=2",
        "model.num_heads=2",
        "model.mlp_ratio=2",
    ],
    "agw": ["data.image_size=[48,32]", "model.layers=[1,2,2,1]", "model.width=8", "model.non_local=[0,1,2,0]"],
    "mun": ["data.image_size=[48,24]", "model.layers=[1,1,1,1]", "model.width=4", "model.ratios=[2,3]"],
}
TRAINING = {"data_checksum": "0123", "step": 5, "best": {"epoch": 1, "map": 0.25}}


def read(path, choice=None):
    """What a file holds, as tensors."""
    held = read_state_dict(path, choice)
    weights, states = ({n: torch.tensor(a) for n, a in of.items()} for of in (held.weights, held.states))
    return replace(held, weights=weights, states=states)


def write(path, tensors, meta, framework):
    write_arrays(path, {name: value.numpy() for name, value in tensors.items()}, meta, framework)


def recipe(model, *overrides):
    config = load_config(CONFIG_ROOT / model / "sysu.yaml", [*SMALL[model], *overrides])
    return config.with_num_classes(config.num_classes)


def convert(monkeypatch, *arguments):
    """Run the command in this process; a refusal raises InputError."""
    monkeypatch.setattr(sys, "argv", ["convert.py", *map(str, arguments)])
    command.main()


def random_state_dict(module, seed=0):
    """Every weight and statistic shaken, so that no two are alike; counters of batches at 3."""
    random = np.random.default_rng(seed)

    def shaken(name, value):
        if name.endswith("running_var"):
            return value * torch.from_numpy(random.uniform(0.5, 2.0, value.shape).astype(np.float32))
        noise = torch.from_numpy(random.normal(size=value.shape).astype(np.float32))
        return value + (0.3 * value.std(correction=0) or 0.05) * noise

    return {
        name: shaken(name, value) if value.is_floating_point() else torch.tensor(3)
        for name, value in module.state_dict().items()
    }


def write_mindspore(path: Path, config):
    """A checkpoint as ms_vireid/train.py leaves it."""
    cell = build_model(config)
    optimizer = build_optimizer(cell, config)
    random = np.random.default_rng(1)
    for parameter in [*cell.get_parameters(), *optimizer.state()]:
        parameter.set_data(ms.Tensor(random.uniform(0.1, 1.0, parameter.shape).astype(np.float32)))
    save_checkpoint(path, [*cell.get_parameters(), *optimizer.state()], {"config": dump_config(config), **TRAINING})
    return path


def write_torch(path: Path, config, steps=TRAINING["step"]):
    """A checkpoint as torch_ref/train.py leaves it, after `steps` steps on random gradients."""
    module = build_torch_model(config)
    module.load_state_dict(random_state_dict(module))
    optimizer = build_torch_optimizer(module, config)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for weight in module.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator) if weight.requires_grad else None
        optimizer.set_learning_rates([1e-3 * 0.5**group for group in range(len(optimizer.groups))])
        optimizer.step()
    save_torch_checkpoint(path, module, {"config": dump_config(config), **TRAINING}, optimizer)
    return path


def write_weights(path: Path, config):
    """A file of PyTorch's names without a training state, and the module whose weights it has."""
    module = build_torch_model(config)
    module.load_state_dict(random_state_dict(module))
    write(path, module.state_dict(), {"config": dump_config(config), "epoch": 4}, TORCH)
    return module


def ms_features(checkpoint, images, modality):
    """Of a converted file, through ms_vireid's own reader."""
    held = load_checkpoint(checkpoint)
    model = build_model(check_config(held.meta["config"], "test"))
    load_model(model, held)
    model.set_train(False)
    return model(ms.Tensor(images), modality).asnumpy()


def torch_features(module, images, modality):
    module.eval()
    with torch.no_grad():
        return module(torch.from_numpy(images), modality).numpy()


def images_of(config, count=3):
    height, width = config.data.image_size
    return np.random.default_rng(5).normal(size=(count, 3, height, width)).astype(np.float32)


def worst(ours, theirs):
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def assert_same(first, second):
    """Two files hold the same tensors, bit for bit, and the same record."""
    one, other = read(first), read(second)
    assert one.meta == other.meta
    for held, found in ((one.weights, other.weights), (one.states, other.states)):
        assert_equal(held, found)


def assert_equal(held, found):
    """Two state dicts are the same, bit for bit."""
    assert held.keys() == found.keys()
    for name, value in held.items():
        assert value.dtype == found[name].dtype
        assert torch.equal(value, found[name]), name
