"""The CUDA kernels that update weights, launched as by MindSpore, against float64."""

import numpy as np
import pytest

from ms_vireid.optimizers.adamw import Scalars as AdamWScalars
from ms_vireid.optimizers.sgd import Scalars
from tests.device.cuda_kernels import ABSENT, aligned, assert_close, empty, random

SIZES = [1, 7, 128, 1283, 3072]
OF_ADAMW, OF_SGD = ({name: place for place, name in enumerate(of._fields)} for of in (AdamWScalars, Scalars))
each_size = pytest.mark.parametrize("size", SIZES)


def scalars(*values):
    """Of the second of three groups."""
    rows = np.full((3, len(values)), np.inf, np.float32)
    rows[1] = values
    return aligned(rows)


def numbers(places, limits=None, **others):
    smallest, largest = limits or (-np.inf, np.inf)
    return places | {"group": 1, "smallest": smallest, "largest": largest} | others


@each_size
@pytest.mark.parametrize("limits", [None, (-0.25, 0.5)])
def test_adamw(kernels, size, limits):
    weight, mean, gradient = (random(size, seed=seed) for seed in range(3))
    square = aligned(random(size, seed=3) ** 2)
    before = [array.astype(np.float64) for array in (weight, mean, square, gradient)]
    lr, decay, eps, beta1, beta2 = 0.01, 0.3, 0.1, 0.875, 0.96875  # in float32 exactly, and so 1 - beta
    of_step = AdamWScalars(lr=lr, decay=decay, eps=eps, beta1=beta1, beta2=beta2)
    kernels("adamw", weight, mean, square, gradient, scalars(*of_step), ABSENT, **numbers(OF_ADAMW, limits))
    w, m, v, g = before
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    w = w - lr * (m / (np.sqrt(v) + eps) + decay * w)
    assert_close(mean, m)
    assert_close(square, v)
    assert_close(weight, w if limits is None else np.clip(w, *limits))


@each_size
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(kernels, size, nesterov):
    weight, buffer, gradient = (random(size, seed=seed) for seed in range(3))
    w, b, g = (array.astype(np.float64) for array in (weight, buffer, gradient))
    of_step = scalars(*Scalars(lr=0.01, decay=0.3, momentum=0.9))
    kernels("sgd", weight, buffer, gradient, of_step, ABSENT, **numbers(OF_SGD, nesterov=nesterov))
    g = g + 0.3 * w
    b = 0.9 * b + g
    assert_close(buffer, b)
    assert_close(weight, w - 0.01 * (g + 0.9 * b if nesterov else b))


@pytest.mark.parametrize("kernel", ["adamw", "sgd"])
@pytest.mark.parametrize("applies", [False, True])
def test_what_does_not_apply_updates_nothing(kernels, kernel, applies):
    places, others = (OF_ADAMW, {}) if kernel == "adamw" else (OF_SGD, {"nesterov": True})
    buffers = [random(128, seed=seed) for seed in range(3 if kernel == "adamw" else 2)]
    before = [buffer.copy() for buffer in buffers]
    gradient = aligned(np.full(128, np.inf, np.float32))
    of_step = scalars(*[0.5] * len(places)), aligned(np.array(applies))
    kernels(kernel, *buffers, gradient, *of_step, **numbers(places, **others))
    for buffer, values in zip(buffers, before, strict=True):
        assert np.array_equal(buffer, values) != applies


def test_a_weight_that_is_no_number_is_not_limited(kernels):
    weight = aligned(np.array([np.nan, -1, 0.5, 2], np.float32))
    tensors = weight, random(4), aligned(np.zeros(4, np.float32)), scalars(0, 0, 0), ABSENT
    kernels("sgd", *tensors, **numbers(OF_SGD, (0.0, 1.0), nesterov=False))
    np.testing.assert_array_equal(weight, [np.nan, 0, 0.5, 1])


@each_size
def test_copies_in_half(kernels, size):
    weight, copy = random(size), empty(size, dtype="float16")
    kernels("halved", copy, weight)
    np.testing.assert_array_equal(copy, weight.astype(np.float16))


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_gradients_that_overflow_update_nothing(worker, optimizer):
    changes = worker.do("changed_by_updates", optimizer, [1.0, 3e38, 1.0])
    assert changes == [[True, 1024.0], [False, 512.0], [True, 512.0]]


@pytest.mark.parametrize("size", [*SIZES, 300_001, 2_200_000])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, np.finfo(np.float32).max])
def test_gradients_are_finite_or_not(kernels, size, value):
    gradient, scale = random(size), aligned(np.array(1024, np.float32))
    for place in {0, size // 2, size - 1}:
        gradient[place], before = value, gradient[place]
        out, finite = kernels("unscaled", gradient, scale)
        assert finite.all() == np.isfinite(value)
        np.testing.assert_array_equal(out, gradient / np.float32(1024))
        gradient[place] = before
    assert kernels("unscaled", gradient, scale)[1].all()


# scale, steps before, whether this one is finite; scale and steps after, the window being 3
@pytest.mark.parametrize(
    ("scale", "steps", "applies", "later", "counted"),
    [
        (1024, 0, True, 1024, 1),
        (1024, 1, True, 1024, 2),
        (1024, 2, True, 2048, 0),
        (1024, 2, False, 512, 0),
        (1.5, 1, False, 1, 0),
        (2**127, 2, True, 2**127, 0),
    ],
)
def test_a_scale_follows_its_steps(kernels, scale, steps, applies, later, counted):
    for place in (0, 3, 304) if not applies else (None,):
        parts = np.ones(5, bool), np.ones(300, bool)
        if place is not None:
            parts[place >= 5][place - 5 * (place >= 5)] = False
        held, counter = aligned(np.array(scale, np.float32)), aligned(np.array(steps, np.int32))
        found = kernels("adjust_scale", held, counter, *map(aligned, parts), factor=2, window=3, counts=(5, 300))
        assert (bool(found), float(held), int(counter)) == (applies, later, counted)
