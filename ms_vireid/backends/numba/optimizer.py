"""Clipping, and the updates of AdamW and SGD, one pass over each weight."""

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor

from ms_vireid.backends.numba.base import STRICT, array, f32, memory, threaded
from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.adamw import Scalars as AdamWScalars
from ms_vireid.optimizers.groups import GroupOptimizer, Part
from ms_vireid.optimizers.sgd import SGD, Scalars


@threaded(**STRICT)
def _adamw(start, stop, weight, exp_avg, exp_avg_sq, gradient, lr, beta1, beta2, eps, decay):
    weight, gradient = weight[start:stop], gradient[start:stop]
    exp_avg, exp_avg_sq = exp_avg[start:stop], exp_avg_sq[start:stop]
    new1 = f32(1) - beta1
    new2 = f32(1) - beta2
    for i in range(weight.size):
        g = gradient[i]
        exp_avg[i] = exp_avg[i] * beta1 + g * new1
        exp_avg_sq[i] = exp_avg_sq[i] * beta2 + g * g * new2
        weight[i] -= lr * (exp_avg[i] / (np.sqrt(exp_avg_sq[i]) + eps) + decay * weight[i])


def adamw(self: AdamW, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
    if applies is not None and not applies.asnumpy():
        return
    s = AdamWScalars(*scalars.asnumpy()[part.group])
    buffers = map(_flat, (part.weight, *part.states))
    _adamw(gradient.size, *buffers, array(gradient).reshape(-1), s.lr, s.beta1, s.beta2, s.eps, s.decay)
    _clamp(self, part)


@threaded(**STRICT)
def _sgd(start, stop, weight, buffer, gradient, lr, decay, momentum, nesterov):
    weight, buffer, gradient = weight[start:stop], buffer[start:stop], gradient[start:stop]
    for i in range(weight.size):
        g = gradient[i] + decay * weight[i]
        buffer[i] = momentum * buffer[i] + g
        weight[i] -= lr * (g + momentum * buffer[i] if nesterov else buffer[i])


def sgd(self: SGD, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
    if applies is not None and not applies.asnumpy():
        return
    s = Scalars(*scalars.asnumpy()[part.group])
    buffers = map(_flat, (part.weight, *part.states))
    _sgd(gradient.size, *buffers, array(gradient).reshape(-1), s.lr, s.decay, s.momentum, self.nesterov)
    _clamp(self, part)


@np.errstate(over="ignore", invalid="ignore")  # as operators
def clip(self: GroupOptimizer, gradients: Sequence[Tensor], max_norm: float) -> Sequence[Tensor]:
    """Most steps need no pass that scales. The sum does not depend on the number of threads, as BLAS's would."""
    squares = sum(np.square(array(gradient)).sum(dtype=np.float64) for gradient in gradients)
    share = f32(max_norm / (np.sqrt(squares) + self.NORM_EPS))
    return gradients if share >= 1 else tuple(Tensor.from_numpy(array(gradient) * share) for gradient in gradients)


def _flat(x: Tensor) -> np.ndarray:
    return memory(x).reshape(-1)


def _clamp(self: GroupOptimizer, part: Part) -> None:
    if (limits := self.limits[part.group]) is not None:
        np.clip(memory(part.weight), *limits, out=memory(part.weight))
