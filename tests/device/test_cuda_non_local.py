"""The CUDA kernels of a non-local block against slow float64."""

import numpy as np
import pytest

from tests.device.cuda_kernels import aligned, assert_close, each_type, random


@each_type
@pytest.mark.parametrize(
    ("samples", "height", "width", "channels"),
    [(1, 1, 1, 1), (2, 3, 5, 7), (3, 4, 6, 33), (20, 8, 9, 16), (1, 7, 211, 9), (2, 3, 2, 1032)],
)
def test_three_maps_of_one_channel(kernels, samples, height, width, channels, dtype):
    x = random(samples, height, width, channels, dtype=dtype)
    weights = [random(1, channels, 1, 1, dtype=dtype, seed=seed) for seed in (1, 2, 3)]
    biases = [random(1, dtype=dtype, seed=seed) for seed in (4, 5, 6)]
    maps = kernels("to_one_channel", x, *weights, *biases)
    slow = x.astype(np.float64)
    for found, weight, bias in zip(maps, weights, biases, strict=True):
        assert_close(found, (slow @ weight.astype(np.float64).reshape(-1) + bias).reshape(found.shape))

    gradients = [random(*maps[0].shape, dtype=dtype, seed=seed) for seed in (7, 8, 9)]
    grad_x, _, *of_weights = kernels("to_one_channel_gradient", x, *gradients, *weights)
    of_maps = [gradient.astype(np.float64).reshape(samples, height, width, 1) for gradient in gradients]
    pairs = zip(of_maps, weights, strict=True)
    assert_close(grad_x, sum(gradient * weight.astype(np.float64).reshape(-1) for gradient, weight in pairs))
    for of_y, grad_weight, grad_bias in zip(of_maps, of_weights[:3], of_weights[3:], strict=True):
        assert_close(grad_weight, (of_y * slow).sum((0, 1, 2))[None, :, None, None])
        assert_close(grad_bias, of_y.sum()[None])


@each_type
@pytest.mark.parametrize(("samples", "positions"), [(1, 1), (2, 31), (3, 257), (5, 1296)])
def test_what_comes_of_the_maps(kernels, samples, positions, dtype):
    g, theta, phi, gradient = (random(samples, 1, positions, dtype=dtype, seed=seed) for seed in range(4))
    y, context = kernels("attended", g, theta, phi)
    slow_g, slow_theta, slow_phi, slow_gradient = (x.astype(np.float64) for x in (g, theta, phi, gradient))
    expected = (slow_g * slow_phi).sum(2, keepdims=True) / positions
    assert_close(context, expected[:, 0, 0])
    assert_close(y, expected * slow_theta)

    gradients = kernels("attended_gradient", gradient, g, theta, phi, context)
    of_product = (slow_gradient * slow_theta).sum(2, keepdims=True) / positions
    wanted = of_product * slow_phi, expected * slow_gradient, of_product * slow_g
    for found, value in zip(gradients, wanted, strict=True):
        assert_close(found, value)


@each_type
@pytest.mark.parametrize(
    ("samples", "height", "width", "channels"), [(1, 1, 2, 1), (2, 3, 5, 7), (20, 8, 9, 16), (3, 9, 18, 264)]
)
def test_a_line_widened_to_all_channels(kernels, samples, height, width, channels, dtype):
    eps, shape, places = 1e-3, (samples, height, width, channels), samples * height * width
    y, x = random(samples, 1, height * width, dtype=dtype), random(*shape, dtype=dtype, seed=1)
    weight, bias = random(channels, 1, 1, 1, dtype=dtype, seed=2), random(channels, dtype=dtype, seed=3)
    gamma, beta, mean, variance = (random(channels, seed=seed) for seed in (4, 5, 6, 7))
    variance = aligned(variance**2)
    w, b, line = (each.astype(np.float64).reshape(-1) for each in (weight, bias, y))
    slow_x = x.astype(np.float64).reshape(places, channels)

    z = kernels("widened_evaluation", x, y, weight, bias, gamma, beta, mean, variance, eps=eps)
    argument = line[:, None] * w + b
    old = mean.astype(np.float64), variance.astype(np.float64)
    assert_close(z, ((argument - old[0]) / np.sqrt(old[1] + eps) * gamma + beta + slow_x).reshape(shape))

    z, moments = kernels("widened", x, y, weight, bias, gamma, beta, mean, variance, eps=eps, momentum=0.1)
    new = argument.mean(0), argument.var(0)
    inverse = 1 / np.sqrt(new[1] + eps)
    normalised = (argument - new[0]) * inverse
    assert_close(z, (normalised * gamma + beta + slow_x).reshape(shape))
    np.testing.assert_allclose(mean, 0.9 * old[0] + 0.1 * new[0], rtol=1e-5, atol=1e-6)
    unbiased = new[1] * places / (places - 1)
    np.testing.assert_allclose(variance, 0.9 * old[1] + 0.1 * unbiased, rtol=1e-5, atol=1e-6)

    gradients = [random(*shape, dtype=dtype, seed=seed) for seed in (8, 9)]
    both = (gradients[0].astype(np.float32) + gradients[1]).astype(dtype)
    g = both.astype(np.float64).reshape(places, channels)
    found = kernels("widened_gradient", *gradients, y, weight, gamma, moments, eps=eps)
    grad_y, grad_weight, grad_bias, grad_gamma, grad_beta, grad_x, *_ = found
    np.testing.assert_array_equal(grad_x, both)
    of_argument = gamma * inverse * (g - g.mean(0) - normalised * (g * normalised).mean(0))
    size = np.abs(of_argument).sum(0).max()
    limit = 4e-6 if dtype == "float32" else 2e-3
    assert (
        np.abs(grad_y.reshape(-1) - of_argument @ w).max()
        <= limit * np.abs(gamma * inverse * w * np.abs(g)).sum(1).max()
    )
    np.testing.assert_allclose(grad_weight.reshape(-1), line @ of_argument, rtol=2e-3, atol=limit * size)
    assert not grad_bias.any()
    np.testing.assert_allclose(grad_gamma, (g * normalised).sum(0), rtol=1e-4, atol=1e-5 * np.abs(g).sum(0).max())
    np.testing.assert_allclose(grad_beta, g.sum(0), rtol=1e-4, atol=1e-6 * np.abs(g).sum(0).max())
