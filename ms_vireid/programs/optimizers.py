"""Updates of contiguous weights by MindSpore's fused operators, in place of an optimiser's own."""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn, ops

_adamw = ops.AdamWeightDecay()
_along_buffer, _along_buffer_nesterov = ops.ApplyMomentum(), ops.ApplyMomentum(use_nesterov=True)
_along_gradient = ops.ApplyGradientDescent()
_ONE = Tensor(1.0, ms.float32)


def adamw_scalars(self: nn.Cell, step: int, learning_rates: Sequence[float]) -> np.ndarray:
    """For MindSpore's fused operator, which has no bias correction:  w -= lr (m / (sqrt(v) + eps) + decay w).

    With c1 = 1 - beta1^t and c2 = 1 - beta2^t it computes the corrected update exactly when it is given
    lr sqrt(c2) / c1,  eps sqrt(c2)  and  decay c1 / sqrt(c2)  in place of lr, eps and decay.
    """
    # The operator takes 1 - beta in float32; its moments are that much off, and the corrections undo it.
    rounding1, rounding2 = (float(np.float32(1) - np.float32(beta)) / (1.0 - beta) for beta in self.betas)
    correction1 = rounding1 * (1.0 - self.betas[0] ** step)
    root2 = np.sqrt(rounding2 * (1.0 - self.betas[1] ** step))
    rows = [
        (lr * root2 / correction1, decay * correction1 / root2, self.eps * root2, *self.betas, 0.0, 0.0, 1.0, 1.0)
        for lr, decay in zip(learning_rates, self.decays, strict=True)
    ]
    return np.array(rows, np.float32)


def adamw(self: nn.Cell, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
    numbers, columns = scalars.reshape(-1), scalars.shape[1]
    beta1, beta2 = numbers[3], numbers[4]
    for i in range(len(self.weights)):
        row = columns * self.group_of[i]
        lr, decay, eps = numbers[row], numbers[row + 1], numbers[row + 2]
        buffers = self.weights[i], self.exp_avg[i], self.exp_avg_sq[i]
        _adamw(*buffers, lr, beta1, beta2, eps, decay, gradients[i])
    _clamp(self)
    return True


def _clamp(self: nn.Cell) -> None:
    """By taking off the difference: `ops.assign` is two copies on a GPU. (What an update's operator returns is not the
    weight on a CPU.)"""
    for i in range(len(self.weights)):
        limits, weight = self.limits[self.group_of[i]], self.weights[i]
        if limits is not None:
            ops.assign_sub(weight, weight - ops.clamp(weight, *limits))


def _decayed(self: nn.Cell, gradients: tuple[Tensor, ...], numbers: Tensor) -> tuple[Tensor, ...]:
    decayed = ()
    for i in range(len(self.weights)):
        group, gradient = self.group_of[i], gradients[i]
        if self.decays[group] > 0.0:
            gradient = ops.addcmul(gradient, self.weights[i], numbers[3 * group + 1], _ONE)
        decayed += (gradient,)
    return decayed


def sgd(self: nn.Cell, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
    """Not by `ops.SGD`, which copies every weight on a GPU. The Nesterov step of `ops.ApplyMomentum` is not Nesterov's
    on a CPU, nor on a GPU, where MindSpore makes one operator of several: they take a second one, along the
    gradient."""
    numbers = scalars.reshape(-1)
    momentum = numbers[2]
    decayed = _decayed(self, gradients, numbers)
    for i in range(len(self.weights)):
        lr = numbers[3 * self.group_of[i]]
        lr = lr * momentum if self.nesterov else lr
        _along_buffer(self.weights[i], self.momentum_buffer[i], lr, decayed[i], momentum)
    # In a loop of its own: MindSpore makes one operator of all of `ApplyMomentum` on a GPU.
    if self.nesterov:
        for i in range(len(self.weights)):
            _along_gradient(self.weights[i], numbers[3 * self.group_of[i]], decayed[i])
    _clamp(self)
    return True


def ascend_sgd(self: nn.Cell, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
    numbers = scalars.reshape(-1)
    along_buffer = _along_buffer_nesterov if self.nesterov else _along_buffer
    for i in range(len(self.weights)):
        group, gradient = self.group_of[i], gradients[i]
        if self.decays[group] > 0.0:  # the older addcmul is compiled for each shape
            gradient = mint.addcmul(gradient, self.weights[i], numbers[3 * group + 1])
        along_buffer(self.weights[i], self.momentum_buffer[i], numbers[3 * group], gradient, numbers[2])
    _clamp(self)
    return True


# An optimiser's own update, of as many operators as its equation has, is for every program what the fused one has to
# agree with.
_ADAMW = {"AdamW.scalars": adamw_scalars, "AdamW.construct": adamw}
TABLE = _ADAMW | {"SGD.construct": sgd}
ASCEND = _ADAMW | {"SGD.construct": ascend_sgd}
