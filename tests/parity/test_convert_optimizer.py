"""Optimizer state in memory: bit for bit in both directions, nothing set unless all fits."""

import mindspore as ms
import numpy as np
import pytest
import torch

from ms_vireid.backends.choosing import backend_named
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.models import build_model
from ms_vireid.optimizers.build import build_optimizer
from parity.states import optimizer_to_mindspore, optimizer_to_torch, to_mindspore
from torch_ref.models import build_model as build_torch_model
from torch_ref.optimizers.build import build_optimizer as build_torch_optimizer

SMALL = ["data.image_size=[16,16]", "model.patch_size=8", "model.embed_dim=16", "model.depth=2", "model.num_heads=2"]


def pair(*overrides):
    config = load_config(CONFIG_ROOT / "pmt/sysu.yaml", [*SMALL, "model.num_classes=5", *overrides])
    cell, module = build_model(config), build_torch_model(config)
    to_mindspore(module.state_dict(), cell)
    return cell, build_optimizer(cell, config), module, build_torch_optimizer(module, config)


SGD = ("optimizer={name: sgd}",)


def fill(optimizer, seed=0):
    random = np.random.default_rng(seed)
    for parameter in optimizer.state():
        parameter.set_data(ms.Tensor(random.random(parameter.shape, np.float32)))


def step_torch(module, optimizer, steps):
    generator = torch.Generator().manual_seed(7)
    optimizer.set_learning_rates([1e-3, 5e-4])
    for _ in range(steps):
        for weight in module.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator) if weight.requires_grad else None
        optimizer.step()


@pytest.mark.parametrize(("overrides", "counted"), [((), 7), (SGD, None)])
def test_state_goes_to_torch_and_back_bit_for_bit(overrides, counted):
    cell, ms_optimizer, _, torch_optimizer = pair(*overrides)
    fill(ms_optimizer)
    before = {p.name: p.asnumpy().copy() for p in ms_optimizer.state()}
    optimizer_to_torch(ms_optimizer, torch_optimizer, cell, step=7)
    fill(ms_optimizer, seed=1)
    assert optimizer_to_mindspore(torch_optimizer, ms_optimizer, cell) == counted
    assert all(np.array_equal(p.asnumpy(), before[p.name]) for p in ms_optimizer.state())


def test_an_optimizer_that_made_no_step_is_all_zero():
    cell, ms_optimizer, _, torch_optimizer = pair()
    fill(ms_optimizer)
    assert optimizer_to_mindspore(torch_optimizer, ms_optimizer, cell) == 0
    assert not any(p.asnumpy().any() for p in ms_optimizer.state())


def test_one_step_after_the_conversion_is_the_same_in_both():
    cell, ms_optimizer, module, torch_optimizer = pair()
    step_torch(module, torch_optimizer, 3)
    computation = backend_named("eager").accelerate(cell, None, ms_optimizer)
    layout = computation.layout(ms_optimizer)  # before weights and states are set
    to_mindspore(module.state_dict(), cell)
    step = optimizer_to_mindspore(torch_optimizer, ms_optimizer, cell)
    random = np.random.default_rng(3)
    gradients = {n: random.standard_normal(w.shape).astype(np.float32) for n, w in module.named_parameters()}
    for name, weight in module.named_parameters():
        weight.grad = torch.from_numpy(gradients[name].copy()) if weight.requires_grad else None
    torch_optimizer.step()
    names = [name for group in torch_optimizer.param_groups for name in group["param_names"]]
    joined = layout.joined(tuple(ms.Tensor(gradients[name]) for name in names))
    ms_optimizer(layout.parts, joined, ms.Tensor(ms_optimizer.scalars(step + 1, [1e-3, 5e-4])))
    weights = dict(module.named_parameters())
    for name, weight in zip(names, layout.weights, strict=True):
        # 1e-6 for one step; the step's length is at most 1e-3.
        np.testing.assert_allclose(weight.asnumpy(), weights[name].detach().numpy(), rtol=0, atol=1e-6)


def test_every_state_that_does_not_fit_is_named_and_nothing_is_set():
    cell, ms_optimizer, module, torch_optimizer = pair()
    step_torch(module, torch_optimizer, 1)
    weights = dict(module.named_parameters())
    del torch_optimizer.state[weights["base.cls_token"]]["exp_avg"]
    torch_optimizer.state[weights["base.norm.weight"]]["exp_avg_sq"] = torch.zeros(3)
    torch_optimizer.state[weights["base.norm.bias"]]["max_exp_avg_sq"] = torch.zeros(16)
    torch_optimizer.state[weights["base.pos_embed"]]["step"] += 1
    with pytest.raises(ValueError, match="does not fit") as error:
        optimizer_to_mindspore(torch_optimizer, ms_optimizer, cell)
    for part in (
        "exp_avg.base.cls_token is missing",
        "exp_avg_sq.base.norm.weight is [3], the optimizer's is [16]",
        "max_exp_avg_sq.base.norm.bias is not in the optimizer",
        "base.pos_embed counts 2 steps",
    ):
        assert part in str(error.value)
    assert not any(p.asnumpy().any() for p in ms_optimizer.state())


def test_a_torch_optimizer_without_names_is_refused():
    cell, ms_optimizer, module, _ = pair()
    with pytest.raises(ValueError, match="named_parameters"):
        optimizer_to_torch(ms_optimizer, torch.optim.AdamW(module.parameters()), cell, step=1)
