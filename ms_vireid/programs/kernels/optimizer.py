"""The updates of AdamW and SGD."""

import math
from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor

from ms_vireid.programs.kernels.base import STRICT, SUMS, array, f32, memory, threaded

_BLOCK = 1 << 12  # numbers that one partial sum, in float64, is of: it does not depend on the number of threads


@threaded(**STRICT)
def _adamw(start, stop, weight, exp_avg, exp_avg_sq, gradient, share, lr, beta1, beta2, eps, decay):
    weight, gradient = weight[start:stop], gradient[start:stop]
    exp_avg, exp_avg_sq = exp_avg[start:stop], exp_avg_sq[start:stop]
    new1 = f32(1) - beta1
    new2 = f32(1) - beta2
    for i in range(weight.size):
        g = gradient[i] * share
        exp_avg[i] = exp_avg[i] * beta1 + g * new1
        exp_avg_sq[i] = exp_avg_sq[i] * beta2 + g * g * new2
        weight[i] -= lr * (exp_avg[i] / (np.sqrt(exp_avg_sq[i]) + eps) + decay * weight[i])


def adamw(weight: Parameter, exp_avg: Parameter, exp_avg_sq: Parameter, gradient: Tensor, *scalars: float) -> None:
    """AdamW's update in place, without bias correction; scalars: the gradient's factor, lr, beta1, beta2, eps,
    decay."""
    held = [memory(tensor).reshape(-1) for tensor in (weight, exp_avg, exp_avg_sq)]
    _adamw(weight.size, *held, array(gradient).reshape(-1), *map(f32, scalars))


@threaded(**STRICT)
def _sgd(start, stop, weight, buffer, gradient, share, lr, decay, momentum, nesterov):
    weight, buffer, gradient = weight[start:stop], buffer[start:stop], gradient[start:stop]
    for i in range(weight.size):
        g = gradient[i] * share + decay * weight[i]
        buffer[i] = momentum * buffer[i] + g
        weight[i] -= lr * (g + momentum * buffer[i] if nesterov else buffer[i])


def sgd(weight: Parameter, buffer: Parameter, gradient: Tensor, nesterov: bool, *scalars: float) -> None:
    """SGD's update in place, with momentum; scalars: the gradient's factor, lr, decay, momentum."""
    held = [memory(tensor).reshape(-1) for tensor in (weight, buffer)]
    _sgd(weight.size, *held, array(gradient).reshape(-1), *map(f32, scalars), nesterov)


@threaded(**SUMS)
def _squares(start, stop, x, sums):
    for block in range(start, stop):
        total = f32(0)
        for value in x[block * _BLOCK : (block + 1) * _BLOCK]:
            total += value * value
        sums[block] = total


def norm(gradients: Sequence[Tensor]) -> float:
    """Of all gradients together."""
    total = 0.0
    for gradient in gradients:
        sums = np.empty(-(-gradient.size // _BLOCK))
        _squares(sums.size, array(gradient).reshape(-1), sums)
        total += sums.sum()
    return math.sqrt(total)


def clamp(weights: Sequence[Parameter], limits: tuple[float, float] | None) -> None:
    """Weights to the limits of their group, if it has any, in place."""
    if limits is not None:
        for weight in weights:
            np.clip(memory(weight), *limits, out=memory(weight))
