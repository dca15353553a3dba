"""The updates of AdamW and SGD."""

import numpy as np
from mindspore import Parameter, Tensor

from ms_vireid.programs.kernels.base import STRICT, array, f32, memory, threaded


@threaded(**STRICT)
def _adamw(start, stop, weight, exp_avg, exp_avg_sq, gradient, lr, eps, decay, beta1, beta2):
    weight, gradient = weight[start:stop], gradient[start:stop]
    exp_avg, exp_avg_sq = exp_avg[start:stop], exp_avg_sq[start:stop]
    new1 = f32(1) - beta1
    new2 = f32(1) - beta2
    for i in range(weight.size):
        exp_avg[i] = exp_avg[i] * beta1 + gradient[i] * new1
        exp_avg_sq[i] = exp_avg_sq[i] * beta2 + gradient[i] * gradient[i] * new2
        weight[i] -= lr * (exp_avg[i] / (np.sqrt(exp_avg_sq[i]) + eps) + decay * weight[i])


def adamw(
    weight: Parameter,
    exp_avg: Parameter,
    exp_avg_sq: Parameter,
    gradient: Tensor,
    *scalars: float,
    limits: tuple[float, float] | None,
) -> None:
    """AdamW's update in place, without bias correction; scalars: lr, eps, decay, beta1, beta2."""
    held = [memory(tensor).reshape(-1) for tensor in (weight, exp_avg, exp_avg_sq)]
    _adamw(weight.size, *held, array(gradient).reshape(-1), *map(f32, scalars))
    _clamp(weight, limits)


@threaded(**STRICT)
def _sgd(start, stop, weight, buffer, gradient, lr, decay, momentum, nesterov):
    weight, buffer, gradient = weight[start:stop], buffer[start:stop], gradient[start:stop]
    for i in range(weight.size):
        g = gradient[i] + decay * weight[i]
        buffer[i] = momentum * buffer[i] + g
        weight[i] -= lr * (g + momentum * buffer[i] if nesterov else buffer[i])


def sgd(
    weight: Parameter,
    buffer: Parameter,
    gradient: Tensor,
    nesterov: bool,
    *scalars: float,
    limits: tuple[float, float] | None,
) -> None:
    """SGD's update in place, with momentum; scalars: lr, decay, momentum."""
    held = [memory(tensor).reshape(-1) for tensor in (weight, buffer)]
    _sgd(weight.size, *held, array(gradient).reshape(-1), *map(f32, scalars), nesterov)
    _clamp(weight, limits)


def _clamp(weight: Parameter, limits: tuple[float, float] | None) -> None:
    if limits is not None:
        np.clip(memory(weight), *limits, out=memory(weight))
