"""BatchNorm, with the addition and the ReLU that follow it."""

import numpy as np
from mindspore import Tensor

from ms_vireid.backends.numba.base import STRICT, SUMS, Function, array, f32, memory, threaded
from ms_vireid.backends.numba.feature_maps import new_map, rows_by_channel
from ms_vireid.files.kernel_cache import njit


@njit(**SUMS)
def _moments(x):
    """Mean and biased variance of one channel [N, L]."""
    count, total = x.size, 0.0
    for n in range(x.shape[0]):
        part = f32(0)
        for i in range(x.shape[1]):
            part += x[n, i]
        total += part
    mean, total = f32(total / count), 0.0
    for n in range(x.shape[0]):
        part = f32(0)
        for i in range(x.shape[1]):
            part += (x[n, i] - mean) * (x[n, i] - mean)
        total += part
    return mean, f32(total / count)


@threaded(**STRICT)
def _normalise(start, stop, x, training, mean, variance, eps, scale, gamma, beta, shortcut, adds, relu, y):
    """x [C, N, L], in training by its own mean and variance, while a channel is in the cache."""
    for c in range(start, stop):
        if training:
            mean[c], variance[c] = _moments(x[c])
        scale[c] = f32(1) / np.sqrt(variance[c] + eps)
        slope = scale[c] * gamma[c]
        for n in range(x.shape[1]):
            for i in range(x.shape[2]):
                value = (x[c, n, i] - mean[c]) * slope + beta[c]
                if adds:
                    value += shortcut[c, n, i]
                y[c, n, i] = f32(0) if relu and value < f32(0) else value


@threaded(**SUMS)
def _batch_norm_gradient(
    start, stop, x, y, gradient, grad_x, grad_sum, gamma, mean, scale, relu, adds, training, grad_gamma, grad_beta
):
    count = x.shape[1] * x.shape[2]
    for c in range(start, stop):
        centre = mean[c]
        along_one = 0.0
        along_x = 0.0
        for n in range(x.shape[1]):
            values, outputs, incoming = x[c, n], y[c, n], gradient[c, n]
            part_one = f32(0)
            part_x = f32(0)
            for i in range(values.size):
                g = incoming[i] if not relu or outputs[i] > f32(0) else f32(0)
                part_one += g
                part_x += g * (values[i] - centre)
            along_one += part_one
            along_x += part_x * scale[c]
        grad_beta[c] = along_one
        grad_gamma[c] = along_x
        slope = gamma[c] * scale[c]
        one = f32(along_one / count if training else 0.0)
        tilt = f32(along_x / count * scale[c] if training else 0.0)
        for n in range(x.shape[1]):
            values, outputs, incoming = x[c, n], y[c, n], gradient[c, n]
            grad_values, grad_sums = grad_x[c, n], grad_sum[c, n]
            if adds:  # in its own loop: otherwise grad_sum is the gradient itself, and may not be written
                for i in range(values.size):
                    grad_sums[i] = incoming[i] if not relu or outputs[i] > f32(0) else f32(0)
            for i in range(values.size):
                g = incoming[i] if not relu or outputs[i] > f32(0) else f32(0)
                grad_values[i] = slope * (g - one - tilt * (values[i] - centre))


class BatchNorm(Function):
    """BatchNorm over N, H and W, then optionally a shortcut and ReLU: float32 [N, C, H, W] -> [N, C, H, W].

    gamma, beta: [C]. shortcut: as x, or None. moving: running mean and variance [C], updated in training; momentum is
    the weight of the new ones.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, shortcut, moving, eps, momentum, training, relu):
        values, averages = rows_by_channel(x), [memory(average) for average in moving]
        mean, variance = np.empty((2, len(values)), np.float32) if training else averages
        y, out = new_map(x.shape)
        added = values if shortcut is None else rows_by_channel(shortcut)
        scale, numbers = np.empty_like(mean), (array(gamma), array(beta))
        adds = shortcut is not None
        _normalise(len(mean), values, training, mean, variance, f32(eps), scale, *numbers, added, adds, relu, out)
        if training:
            count = values[0].size
            for average, new in zip(averages, (mean, variance * f32(count / (count - 1))), strict=True):
                average += f32(momentum) * (new - average)
        ctx.save_for_backward(*((x, gamma, y) if relu else (x, gamma)))
        ctx.options = mean.copy(), scale, training, adds
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, gamma, *outputs = ctx.saved_tensors
        mean, scale, training, adds = ctx.options
        values, incoming = rows_by_channel(x), rows_by_channel(gradient)
        grad_x, grad_values = new_map(x.shape)
        grad_shortcut, grad_added = new_map(x.shape) if adds and outputs else (gradient, incoming)
        grad_gamma, grad_beta = np.empty((2, len(mean)), np.float32)
        _batch_norm_gradient(
            len(mean),
            values,
            rows_by_channel(outputs[0]) if outputs else values,
            incoming,
            grad_values,
            grad_added,
            array(gamma),
            mean,
            scale,
            bool(outputs),
            grad_shortcut is not gradient,
            training,
            grad_gamma,
            grad_beta,
        )
        return grad_x, Tensor(grad_gamma), Tensor(grad_beta), grad_shortcut if adds else None, *[None] * 5
