"""BatchNorm, with the sum and the ReLU after it."""

import numpy as np
from mindspore import Tensor

from ms_vireid.programs.kernels.base import STRICT, SUMS, Function, array, f32, memory, threaded
from ms_vireid.programs.kernels.feature_maps import new_map, rows_by_channel


@threaded(**SUMS)
def _statistics(start, stop, x, mean, variance):
    """Of each channel of x [C, N, L]: mean and biased variance."""
    count = x.shape[1] * x.shape[2]
    for c in range(start, stop):
        total = 0.0
        for n in range(x.shape[1]):
            part = f32(0)
            for i in range(x.shape[2]):
                part += x[c, n, i]
            total += part
        mean[c] = total / count
        total = 0.0
        for n in range(x.shape[1]):
            part = f32(0)
            for i in range(x.shape[2]):
                part += (x[c, n, i] - mean[c]) * (x[c, n, i] - mean[c])
            total += part
        variance[c] = total / count


@threaded(**STRICT)
def _normalise(start, stop, x, mean, slope, beta, shortcut, shortened, relu, y):
    for c in range(start, stop):
        for n in range(x.shape[1]):
            for i in range(x.shape[2]):
                value = (x[c, n, i] - mean[c]) * slope[c] + beta[c]
                if shortened:
                    value += shortcut[c, n, i]
                y[c, n, i] = f32(0) if relu and value < f32(0) else value


@threaded(**SUMS)
def _batch_norm_derivative(
    start, stop, x, y, gradient, of_x, of_y, gamma, mean, scale, relu, shortened, trained, of_gamma, of_beta
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
        of_beta[c] = along_one
        of_gamma[c] = along_x
        slope = gamma[c] * scale[c]
        one = f32(along_one / count if trained else 0.0)
        tilt = f32(along_x / count * scale[c] if trained else 0.0)
        for n in range(x.shape[1]):
            values, outputs, incoming = x[c, n], y[c, n], gradient[c, n]
            of_values, of_outputs = of_x[c, n], of_y[c, n]
            if shortened:  # in a loop of its own: else of_y is the gradient, and what is read may not be written
                for i in range(values.size):
                    of_outputs[i] = incoming[i] if not relu or outputs[i] > f32(0) else f32(0)
            for i in range(values.size):
                g = incoming[i] if not relu or outputs[i] > f32(0) else f32(0)
                of_values[i] = slope * (g - one - tilt * (values[i] - centre))


class BatchNorm(Function):
    """BatchNorm over N, H and W, plus the shortcut, then ReLU, each where asked for: float32 [N, C, H, W] -> the same.

    gamma, beta: [C]. shortcut: as x, or None. moving: the running mean and variance [C], which training changes;
    momentum is the weight of the new ones.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, shortcut, moving, eps, momentum, training, relu):
        values = rows_by_channel(x)
        mean, variance = (memory(average) for average in moving)
        if training:
            averages = mean, variance
            mean, variance = np.empty((2, len(mean)), np.float32)
            _statistics(len(mean), values, mean, variance)
            count = values[0].size
            for average, new in zip(averages, (mean, variance * f32(count / (count - 1))), strict=True):
                average += f32(momentum) * (new - average)
        scale = 1 / np.sqrt(variance + f32(eps))
        y, out = new_map(x.shape)
        added = values if shortcut is None else rows_by_channel(shortcut)
        slope = scale * array(gamma)
        _normalise(len(mean), values, mean, slope, array(beta), added, shortcut is not None, relu, out)
        ctx.save_for_backward(*((x, gamma, y) if relu else (x, gamma)))
        ctx.how = mean.copy(), scale, training, shortcut is not None
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, gamma, *outputs = ctx.saved_tensors
        mean, scale, training, shortened = ctx.how
        values, incoming = rows_by_channel(x), rows_by_channel(gradient)
        of_x, of_values = new_map(x.shape)
        of_shortcut, of_added = new_map(x.shape) if shortened and outputs else (gradient, incoming)
        of_gamma, of_beta = np.empty((2, len(mean)), np.float32)
        _batch_norm_derivative(
            len(mean),
            values,
            rows_by_channel(outputs[0]) if outputs else values,
            incoming,
            of_values,
            of_added,
            array(gamma),
            mean,
            scale,
            bool(outputs),
            of_shortcut is not gradient,
            training,
            of_gamma,
            of_beta,
        )
        return of_x, Tensor(of_gamma), Tensor(of_beta), of_shortcut if shortened else None, *[None] * 5
