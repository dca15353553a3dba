"""Training with `train.recompute`: less is kept, and nothing else differs, not by a bit."""

from functools import cache

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ms_vireid.backends.choosing import OF_DEVICE, backend_named
from ms_vireid.config import AGWConfig, MUNConfig, Setting
from ms_vireid.models import AGW, MUN
from ms_vireid.models.resnet import Bottleneck

BACKENDS = OF_DEVICE["CPU"]

SMALL = {"layers": (1, 1, 1, 1), "width": 8}
MODELS = {
    "agw": (AGW, AGWConfig(**SMALL, non_local=(0, 1, 1, 0))),
    "mun": (MUN, MUNConfig(**SMALL, ratios=(2, 3))),
    "mun X": (MUN, MUNConfig(**SMALL, intermediate="X")),
}


def two_steps(model, backend):
    """The last value, all gradients, and what BatchNorms and prototypes remember."""
    backend_named(backend).accelerate(model.set_train())

    def value_of(images):
        total = 0.0
        for output in model(images):
            total = total + (output * output).sum()
        return total

    differentiated = ms.value_and_grad(value_of, None, model.trainable_params())

    def step(images):
        return differentiated(images)

    step = ms.jit(step) if backend == "graph" else step
    images = np.random.default_rng(0).standard_normal((8, 3, 96, 48)).astype(np.float32)
    for _ in range(2):
        value, gradients = step(Tensor(images))
    untrained = [p for p in model.get_parameters() if not p.requires_grad]
    return [x.asnumpy().copy() for x in (value, *gradients, *untrained)]


def drawn(name, recompute):
    ms.set_seed(0)
    network, config = MODELS[name]
    return network(config, 5, Setting(batch=(2, 2), recompute=recompute))


@cache
def without(name, backend):
    return two_steps(drawn(name, False), backend)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# A graph of "mun X" has the parts of the two others.
@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, backend) for name in MODELS for backend in BACKENDS if (name, backend) != ("mun X", "graph")],
)
def test_values_gradients_and_running_averages_are_those_without_it(name, backend):
    assert same(two_steps(drawn(name, True), backend), without(name, backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_norm_that_runs_twice_is_seen(backend):
    model = drawn("agw", False)
    model.recomputed = tuple(block for block in model.shared if isinstance(block, Bottleneck))
    assert not same(two_steps(model, backend), without("agw", backend))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_recomputed_is_computed_twice(name):
    model = drawn(name, True)
    calls = dict.fromkeys(map(id, model.recomputed), 0)
    backend_named("eager").accelerate(model)
    for cell in model.recomputed:
        construct = cell.construct

        def counted(*inputs, construct=construct, cell=cell):
            calls[id(cell)] += 1
            return construct(*inputs)

        cell.construct = counted
    two_steps(model, "eager")
    uses = {id(cell): 2 for cell in model.generator.cross_learner.transposed} if name == "mun" else {}
    assert {number / uses.get(cell, 1) for cell, number in calls.items()} == {4}
