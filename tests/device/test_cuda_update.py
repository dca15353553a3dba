"""The CUDA kernels that update weights, launched as by MindSpore, against float64."""

import numpy as np
import pytest

from tests.device.cuda_kernels import aligned, assert_close, each_type, empty, random

SIZES = [1, 7, 128, 1283, 3072]
NO_LIMITS = aligned(np.zeros(1, np.float32))
APPLIES, SKIPPED = (aligned(np.array(applies)) for applies in (True, False))
EMPTY = np.zeros(1, np.float32)  # an output that nobody writes
each_size = pytest.mark.parametrize("size", SIZES)


def scalars(*numbers):
    """Of the second of three groups."""
    rows = np.full((3, len(numbers)), np.inf, np.float32)
    rows[1] = numbers
    return aligned(rows), aligned(np.array([1], np.int32))


@each_size
@pytest.mark.parametrize("limits", [None, (-0.25, 0.5)])
def test_adamw(kernels, size, limits):
    weight, mean, gradient = (random(size, seed=seed) for seed in range(3))
    square = aligned(random(size, seed=3) ** 2)
    before = [array.astype(np.float64) for array in (weight, mean, square, gradient)]
    lr, decay, eps, beta1, beta2 = 0.01, 0.3, 0.1, 0.875, 0.96875  # in float32 exactly, and so 1 - beta
    ends = NO_LIMITS if limits is None else aligned(np.array(limits, np.float32))
    kernels("adamw", weight, mean, square, gradient, *scalars(lr, decay, eps, beta1, beta2), ends, APPLIES, EMPTY)
    w, m, v, g = before
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    w = w - lr * (m / (np.sqrt(v) + eps) + decay * w)
    assert_close(mean, m)
    assert_close(square, v)
    assert_close(weight, w if limits is None else np.clip(w, *limits))


@each_size
@pytest.mark.parametrize("kernel", ["sgd", "sgd_nesterov"])
def test_sgd(kernels, size, kernel):
    weight, buffer, gradient = (random(size, seed=seed) for seed in range(3))
    w, b, g = (array.astype(np.float64) for array in (weight, buffer, gradient))
    kernels(kernel, weight, buffer, gradient, *scalars(0.01, 0.3, 0.9), NO_LIMITS, APPLIES, EMPTY)
    g = g + 0.3 * w
    b = 0.9 * b + g
    assert_close(buffer, b)
    assert_close(weight, w - 0.01 * (g + 0.9 * b if kernel == "sgd_nesterov" else b))


@pytest.mark.parametrize(("kernel", "states", "numbers"), [("adamw", 2, 5), ("sgd", 1, 3)])
def test_an_update_that_is_skipped_changes_nothing(kernels, kernel, states, numbers):
    buffers = [random(128, seed=seed) for seed in range(1 + states)]
    before = [buffer.copy() for buffer in buffers]
    gradient = aligned(np.full(128, np.inf, np.float32))
    kernels(kernel, *buffers, gradient, *scalars(*[0.5] * numbers), NO_LIMITS, SKIPPED, EMPTY)
    for buffer, held in zip(buffers, before, strict=True):
        np.testing.assert_array_equal(buffer, held)


def test_a_weight_that_is_no_number_is_not_limited(kernels):
    weight = aligned(np.array([np.nan, -1, 0.5, 2], np.float32))
    limits = aligned(np.array([0, 1], np.float32))
    kernels("sgd", weight, random(4), aligned(np.zeros(4, np.float32)), *scalars(0, 0, 0), limits, APPLIES, EMPTY)
    np.testing.assert_array_equal(weight, [np.nan, 0, 0.5, 1])


@each_type
@each_size
def test_gradients_without_their_scale(kernels, size, dtype):
    x, out = random(size, dtype=dtype), empty(size, dtype=dtype)
    kernels("unscaled", x, aligned(np.array(1024, np.float32)), out)
    assert_close(out, x.astype(np.float64) / 1024)


@each_size
def test_copies_in_half(kernels, size):
    weight, copy = random(size), empty(size, dtype="float16")
    kernels("halved", copy, weight, EMPTY)
    np.testing.assert_array_equal(copy, weight.astype(np.float16))


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_gradients_that_overflow_update_nothing(worker, optimizer):
    assert worker.do("changed_by_updates", optimizer, [1.0, 3e38, 1.0]) == [True, False, True]
