"""An optimiser's update by the CUDA kernels, which write weights and states in place."""

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, amp, nn, ops

from ms_vireid.programs import half
from ms_vireid.programs.cuda.operators import floats, operator, same, writing


def _in_place(name: str, written: int, read: int) -> ops.Custom:
    """written: how many parameters, which come first, it writes; read: what else it takes. Its result is of no use."""
    return writing(name, range(written), written + read, lambda *_: (1,), lambda *_: ms.float32)


_adamw = _in_place("adamw", 3, 4)
_sgd, _sgd_nesterov = _in_place("sgd", 2, 4), _in_place("sgd_nesterov", 2, 4)
_halved = _in_place("halved", 1, 1)
_unscaled = operator("unscaled", same, same)
_NO_UPDATE = Tensor(np.nan, ms.float32)


@ops.constexpr
@cache
def _group(number: int) -> Tensor:
    return Tensor(np.array([number], np.int32))


def _limits(limits: tuple[float, float] | None) -> Tensor:
    return floats(0.0) if limits is None else floats(*limits)


def adamw(self: nn.Cell, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
    for i in range(len(self.weights)):
        group = self.group_of[i]
        buffers = self.weights[i], self.exp_avg[i], self.exp_avg_sq[i]
        _adamw(*buffers, gradients[i], scalars, _group(group), _limits(self.limits[group]))
    return True


def sgd(self: nn.Cell, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
    for i in range(len(self.weights)):
        group = self.group_of[i]
        inputs = self.weights[i], self.momentum_buffer[i], gradients[i], scalars, _group(group)
        if self.nesterov:
            _sgd_nesterov(*inputs, _limits(self.limits[group]))
        else:
            _sgd(*inputs, _limits(self.limits[group]))
    return True


def only_if(self: nn.Cell, finite: Tensor, gradients: tuple[Tensor, ...], scalars: Tensor) -> tuple:
    """Without a pass over the gradients: the kernels update nothing by what is no number."""
    return gradients, ops.where(finite, scalars, _NO_UPDATE)


def unscale(scale: Tensor, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    unscaled = ()
    for gradient in gradients:
        unscaled += (_unscaled(gradient, scale),)
    return unscaled


def write_half(copy: Parameter, weight: Parameter) -> None:
    _halved(copy, weight)


# Predicted of an H100: ms of what each row replaces, and of the kernels. Measured alone in float32 / float16, all rows:
# PMT 0.8 / 1.2, MUN 0.5 / 0.8, AGW 0.2 / 0.3.
TABLE = {
    "AdamW.construct": adamw,  # PMT: 1.1 for 1.0, and 7 launches; MUN: 0.7 for 0.6, and 11 launches
    "SGD.construct": sgd,  # AGW: 1.0 for 0.2
    "AdamW.only_if": only_if,  # in float16, PMT: 0.5 for none, MUN: 0.3
    "SGD.only_if": only_if,  # in float16, AGW: 0.1
    (amp, "_grad_unscale_map"): unscale,  # PMT: 1.1 for 0.3, MUN: 0.7 for 0.2, AGW: 0.3 for 0.1
    (half, "write"): write_half,  # PMT: 0.6 for 0.2, AGW: 0.2 for 0.1, MUN: 0.2 for 0.1
}
