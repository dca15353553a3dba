"""The update of SGD."""

import numpy as np
from mindspore import Parameter, Tensor

from ms_vireid.programs.kernels.base import STRICT, array, f32, memory, threaded


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
    if limits is not None:
        np.clip(memory(weight), *limits, out=memory(weight))
