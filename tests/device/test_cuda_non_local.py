"""The CUDA kernels of a non-local block against slow float64."""

import numpy as np
import pytest

from tests.device.cuda_kernels import assert_close, each_type, empty, random


@each_type
@pytest.mark.parametrize(
    ("samples", "channels", "height", "width"),
    [(1, 1, 1, 1), (2, 7, 3, 5), (3, 33, 4, 6), (20, 16, 8, 9), (1, 9, 7, 211)],
)
def test_three_maps_of_one_channel(kernels, samples, channels, height, width, dtype):
    x = random(samples, channels, height, width, dtype=dtype)
    weights = [random(1, channels, 1, 1, dtype=dtype, seed=seed) for seed in (1, 2, 3)]
    biases = [random(1, dtype=dtype, seed=seed) for seed in (4, 5, 6)]
    maps = [empty(samples, 1, height * width, dtype=dtype) for _ in range(3)]
    kernels("to_one_channel", x, *weights, *biases, *maps)
    slow = x.astype(np.float64)
    for found, weight, bias in zip(maps, weights, biases, strict=True):
        assert_close(found, ((slow * weight.astype(np.float64)).sum(1, keepdims=True) + bias).reshape(found.shape))

    gradients = [random(*maps[0].shape, dtype=dtype, seed=seed) for seed in (7, 8, 9)]
    grad_x, parts = empty(*x.shape, dtype=dtype), empty(min(16, samples), 3, channels + 1)
    grad_weights = [empty(1, channels, 1, 1, dtype=dtype) for _ in range(3)]
    grad_biases = [empty(1, dtype=dtype) for _ in range(3)]
    kernels("to_one_channel_gradient", x, *gradients, *weights, grad_x, parts, *grad_weights, *grad_biases)
    of_maps = [gradient.astype(np.float64).reshape(samples, 1, height, width) for gradient in gradients]
    assert_close(grad_x, sum(gradient * weight for gradient, weight in zip(of_maps, weights, strict=True)))
    for of_y, grad_weight, grad_bias in zip(of_maps, grad_weights, grad_biases, strict=True):
        assert_close(grad_weight, (of_y * slow).sum((0, 2, 3))[None, :, None, None])
        assert_close(grad_bias, of_y.sum()[None])


@each_type
@pytest.mark.parametrize(("samples", "positions"), [(1, 1), (2, 31), (3, 257), (5, 1296)])
def test_what_comes_of_the_maps(kernels, samples, positions, dtype):
    g, theta, phi, gradient = (random(samples, 1, positions, dtype=dtype, seed=seed) for seed in range(4))
    y, context = empty(samples, 1, positions, dtype=dtype), empty(samples)
    kernels("attended", g, theta, phi, y, context)
    slow_g, slow_theta, slow_phi, slow_gradient = (x.astype(np.float64) for x in (g, theta, phi, gradient))
    expected = (slow_g * slow_phi).sum(2, keepdims=True) / positions
    assert_close(context, expected[:, 0, 0])
    assert_close(y, expected * slow_theta)

    gradients = [empty(samples, 1, positions, dtype=dtype) for _ in range(3)]
    kernels("attended_gradient", gradient, g, theta, phi, context, *gradients)
    of_product = (slow_gradient * slow_theta).sum(2, keepdims=True) / positions
    wanted = of_product * slow_phi, expected * slow_gradient, of_product * slow_g
    for found, value in zip(gradients, wanted, strict=True):
        assert_close(found, value)
