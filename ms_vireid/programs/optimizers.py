"""Optimiser updates of contiguous weights by MindSpore's fused operators."""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn, ops

_adamw = ops.AdamWeightDecay()
_along_buffer, _along_buffer_nesterov = ops.ApplyMomentum(), ops.ApplyMomentum(use_nesterov=True)
_along_gradient = ops.ApplyGradientDescent()
_ZERO, _ONE = Tensor(0.0, ms.float32), Tensor(1.0, ms.float32)


def adamw_scalars(self: nn.Cell, step: int, learning_rates: Sequence[float]) -> np.ndarray:
    """Scalars for MindSpore's fused operator, which has no bias correction:  w -= lr (m / (sqrt(v) + eps) + decay w).

    With c1 = 1 - beta1^t and c2 = 1 - beta2^t, the corrected update is exactly this operator's with
    lr sqrt(c2) / c1,  eps sqrt(c2)  and  decay c1 / sqrt(c2)  in place of lr, eps and decay.
    """
    # The operator rounds 1 - beta to float32, which scales its moments; the corrections undo that.
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
    eps, beta1, beta2 = numbers[2], numbers[3], numbers[4]  # the same for all groups: each slice is a launch
    decaying = columns * self.decays.index(max(self.decays))  # of a group that decays: all that do, decay alike
    for i in range(len(self.weights)):
        group = self.group_of[i]
        lr = numbers[columns * group]
        decay = numbers[decaying + 1] if self.decays[group] > 0.0 else _ZERO
        buffers = self.weights[i], self.exp_avg[i], self.exp_avg_sq[i]
        _adamw(*buffers, lr, beta1, beta2, eps, decay, gradients[i])
    _clamp(self)
    return True


def _clamp(self: nn.Cell) -> None:
    """Clamp weights to their group's limits, by subtracting the difference: `ops.assign` copies twice on a GPU. Reads
    the weight itself, since an update's operator returns something else on a CPU."""
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
    """`ops.SGD` copies every weight on a GPU. `ops.ApplyMomentum` computes the Nesterov step wrongly on a CPU, and on a
    GPU, where MindSpore fuses several: a second operator steps along the gradient."""
    numbers = scalars.reshape(-1)
    momentum = numbers[2]
    decayed = _decayed(self, gradients, numbers)
    for i in range(len(self.weights)):
        lr = numbers[3 * self.group_of[i]]
        lr = lr * momentum if self.nesterov else lr
        _along_buffer(self.weights[i], self.momentum_buffer[i], lr, decayed[i], momentum)
    # A separate loop: on a GPU MindSpore fuses all `ApplyMomentum` into one operator.
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


# The optimiser's own update, operator by operator as in its equation, is the reference for the fused ones.
_ADAMW = {"AdamW.scalars": adamw_scalars, "AdamW.construct": adamw}
TABLE = _ADAMW | {"SGD.construct": sgd}
ASCEND = _ADAMW | {"SGD.construct": ascend_sgd}
