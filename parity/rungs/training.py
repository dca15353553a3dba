"""Rung 5: parameter groups and learning rates, one optimiser step, and 20 training steps of each whole method.
Seven are of a training that falls over."""

from functools import partial

import mindspore as ms
import numpy as np
import torch

from ms_vireid.config.models import MUNConfig
from ms_vireid.models import build_model as mindspore_model
from ms_vireid.optimizers import schedule as mindspore_schedule
from ms_vireid.optimizers.build import build_optimizer as mindspore_optimizer
from parity.compare import EXACT, UPDATE, Comparison, compare, compare_all, compare_names
from parity.harness import ALL_BUT_KERNELS, Case, CompareBackend, once, prepared, same_weights
from parity.mapping import torch_names
from parity.oracles import CosineLRScheduler
from parity.states import to_mindspore
from parity.trajectory import (
    FALL,
    RECIPES,
    compare_half_training,
    compare_trajectories,
    configuration,
    reference,
    trajectories,
)
from torch_ref.models import build_model as torch_model
from torch_ref.optimizers.build import build_optimizer as torch_optimizer


def groups(recipe: str) -> list[Comparison]:
    """Compare each group's learning rate factor, decay and parameters by name; every trainable parameter is in exactly
    one group."""
    config = configuration(recipe)
    cell = mindspore_model(config)
    names = torch_names(cell)
    actual = {group.name: group for group in mindspore_optimizer(cell, config).groups}
    expected = {group.name: group for group in torch_optimizer(torch_model(config), config).groups}
    comparisons = [compare_names("groups", actual, expected)]
    grouped = [names[p.name] for group in actual.values() for p in group.parameters]
    comparisons.append(compare_names("grouped", grouped, [names[p.name] for p in cell.trainable_params()]))
    comparisons.append(compare("times grouped", np.int64(len(grouped)), np.int64(len(set(grouped))), EXACT))
    for name, group in expected.items():
        members = [names[p.name] for p in actual[name].parameters]
        comparisons.append(compare_names(f"members of {name}", members, group.names))
        ours, theirs = (np.array([g.lr_factor, g.decays]) for g in (actual[name], group))
        comparisons.append(compare(f"factor and decay of {name}", ours, theirs, EXACT))
    return comparisons


def updates(recipe: str, clip_norm: float | None = None) -> CompareBackend:
    """Compare six updates with torch.optim's on the same gradients: bias correction, decay, momentum, both groups.

    clip_norm: the norm of all gradients is alternately twice and half of it.
    """
    config = configuration(recipe)
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"clip_norm": clip_norm})})
    cell, module = mindspore_model(config), torch_model(config)
    same_weights(cell, module)
    initial = {name: value.clone() for name, value in module.state_dict().items()}
    oracle = torch_optimizer(module, config)
    weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
    rng = np.random.default_rng(0)
    steps = []  # learning rates, gradients and what they make of the weights
    for step in range(1, 7):
        rates = [0.01 * group.lr_factor * step for group in oracle.groups]
        gradients = {
            n: (rng.normal(size=p.shape) * 10.0 ** rng.integers(-4, 1)).astype(np.float32) for n, p in weights.items()
        }
        if clip_norm:
            norm = np.linalg.norm([np.linalg.norm(gradient) for gradient in gradients.values()])
            wanted = clip_norm * (2.0 if step % 2 else 0.5)
            gradients = {name: gradient * np.float32(wanted / norm) for name, gradient in gradients.items()}
        for name, gradient in gradients.items():
            weights[name].grad = torch.from_numpy(gradient.copy())  # which clipping changes
        oracle.set_learning_rates(rates)
        if clip_norm:
            oracle.clip(clip_norm)
        oracle.step()
        steps.append((rates, gradients, {name: weight.detach().numpy().copy() for name, weight in weights.items()}))

    def compare_backend(backend: str) -> list[Comparison]:
        cell = mindspore_model(config)
        to_mindspore(initial, cell)
        ours = mindspore_optimizer(cell, config)
        names = torch_names(cell)
        computation = prepared(backend, cell, None, ours)
        layout = computation.layout(ours)

        def update_weights(*inputs):  # not a tuple of gradients: a graph is compiled anew for each tuple
            gradients = layout.joined(inputs[:-1])
            return ours(layout.parts, ours.clip(gradients, clip_norm) if clip_norm else gradients, inputs[-1])

        update = computation.compile(update_weights)
        comparisons = []
        for step, (rates, gradients, expected) in enumerate(steps, 1):
            inputs = [ms.Tensor(gradients[names[weight.name]]) for weight in layout.weights]
            update(*inputs, ms.Tensor(ours.scalars(step, rates)))
            actual = {names[weight.name]: weight.asnumpy() for weight in layout.weights}
            comparisons += compare_all(f"after update {step}", actual, expected, UPDATE)
        return comparisons

    return compare_backend


def pmt_schedule() -> list[Comparison]:
    """Compare all 24 epochs with the authors' schedule: timm's cosine with warm-up, stepped by epoch."""
    comparisons = []
    for base in (3e-4, 1.5e-4):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
        oracle = CosineLRScheduler(optimizer, t_initial=24, lr_min=3e-6, warmup_t=3, warmup_lr_init=3e-6)
        expected = []
        for epoch in range(1, 24):
            oracle.step(epoch)
            expected.append(optimizer.param_groups[0]["lr"])
        expected.append(3e-6)  # at the end of its cycle timm's starts another; the paper's training ends there
        actual = [mindspore_schedule.warmup_cosine(epoch, base, 24, 3, 3e-6, 3e-6) for epoch in range(1, 25)]
        comparisons.append(compare(f"learning rates from {base}", np.array(actual), np.array(expected), UPDATE))
    return comparisons


def mun_schedule() -> list[Comparison]:
    """Compare 90 epochs of four iterations with PyTorch's chained linear warm-up and steps, stepped by iteration."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-8 / 2e-3, total_iters=15 * 4)
    steps = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30 * 4, 60 * 4], gamma=0.1)
    oracle = torch.optim.lr_scheduler.ChainedScheduler([linear, steps])
    expected = []
    for _ in range(90 * 4):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        oracle.step()
    options = {"warmup_epochs": 15, "start_lr": 1e-8, "milestones": (30, 60), "factor": 0.1}
    actual = [mindspore_schedule.iteration_steps(k / 4, 2e-3, 90, **options) for k in range(90 * 4)]
    return [compare("learning rates", np.array(actual), np.array(expected), UPDATE)]


def mun_beta() -> list[Comparison]:
    """Compare the prototypes' updating ratio with learning rates of PyTorch's schedulers, stepped by iteration and by
    epoch."""
    first, iterations, epochs, comparisons = 1e-8, 4, 9, []
    schedulers = torch.optim.lr_scheduler
    oracles = {
        "linear": lambda optimizer, count: schedulers.LinearLR(optimizer, first, 1.0, count),
        "constant": lambda optimizer, count: schedulers.ConstantLR(optimizer, 1.0, count),
        "cosine": lambda optimizer, count: schedulers.LambdaLR(
            optimizer, lambda i: first + (1 - first) * (1 - np.cos(np.pi * i / count)) / 2
        ),
    }
    for shape, oracle_of in oracles.items():
        for unit, repeated in (("iteration", 1), ("epoch", iterations)):
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
            count = epochs * iterations // repeated
            oracle, expected = oracle_of(optimizer, count - 1), []
            for _ in range(count):
                expected += repeated * [optimizer.param_groups[0]["lr"]]
                optimizer.step()
                oracle.step()
            config = MUNConfig(beta_shape=shape, beta_unit=unit)
            steps = len(expected)
            actual = [first + (1 - first) * config.progress(step, steps, iterations) for step in range(steps)]
            comparisons.append(compare(f"{shape} by {unit}", np.array(actual), np.array(expected), UPDATE))
    return comparisons


def trained(recipe: str, run: str) -> CompareBackend:
    def compare_backend(backend: str) -> list[Comparison]:
        return compare_trajectories(trajectories(recipe, backend)[run], reference(recipe), RECIPES[recipe].chaotic)

    return compare_backend


def _in_half(recipe: str, amp: str) -> CompareBackend:
    return lambda backend: compare_half_training(recipe, amp, backend)


def _of_optimizer(recipe: str) -> list[Case]:
    cases = [once(5, f"{recipe}, groups", groups, recipe), Case(5, f"{recipe}, six updates", partial(updates, recipe))]
    if recipe in ("PMT stage 1", "AGW"):  # one with each optimiser
        cases.append(Case(5, f"{recipe}, six clipped updates", partial(updates, recipe, clip_norm=1.0)))
    return cases


CASES = [
    once(5, "schedule of PMT, timm", pmt_schedule),
    once(5, "schedule of MUN, torch.optim", mun_schedule),
    once(5, "beta of MUN, torch.optim", mun_beta),
    *(case for recipe in RECIPES if recipe != FALL for case in _of_optimizer(recipe)),  # that of PMT
    *(
        Case(5, f"{recipe}, {amp}", partial(_in_half, recipe, amp), False, ALL_BUT_KERNELS, device)
        for recipe in ("PMT stage 2", "AGW", "MUN")
        for amp, device in (("float16", ""), ("bfloat16", "Ascend"))
    ),
    *(
        Case(5, f"{recipe}, {run}", partial(trained, recipe, run), small=False)
        for recipe in RECIPES
        for run in ("MindSpore", "MindSpore, then PyTorch", "PyTorch, then MindSpore")[: 1 if recipe == FALL else 3]
    ),
]
