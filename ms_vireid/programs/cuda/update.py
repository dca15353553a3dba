"""An optimiser's update by the CUDA kernels, which write weights and states in place."""

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from ms_vireid.optimizers import SGD, AdamW
from ms_vireid.optimizers.groups import GroupOptimizer, Part
from ms_vireid.programs import half
from ms_vireid.programs.cuda.operators import operator, same, writing


def _in_place(name: str, written: int, read: int) -> ops.Custom:
    """written: how many parameters, which come first, it writes; read: what else it takes. Its result is of no use."""
    return writing(name, range(written), written + read, lambda *_: (1,), lambda *_: ms.float32)


_adamw = _in_place("adamw", 3, 5)
_sgd, _sgd_nesterov = _in_place("sgd", 2, 5), _in_place("sgd_nesterov", 2, 5)
_halved = _in_place("halved", 1, 1)
_unscaled = operator("unscaled", same, same)


@ops.constexpr
@cache
def _group(number: int) -> Tensor:
    return Tensor(np.array([number], np.int32))


@ops.constexpr
@cache
def _limits(limits: tuple[float, float] | None) -> Tensor:
    """float32 [2], or [1] without any."""
    return Tensor([0.0] if limits is None else limits, ms.float32)


@ops.constexpr
@cache
def _always() -> Tensor:
    return Tensor([True])


def adamw(self: AdamW, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
    _update(_adamw, self.limits[part.group], part, gradient, scalars, applies)


def sgd(self: SGD, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
    _update(_sgd_nesterov if self.nesterov else _sgd, self.limits[part.group], part, gradient, scalars, applies)


def _update(
    operator: ops.Custom,
    limits: tuple[float, float] | None,
    part: Part,
    gradient: Tensor,
    scalars: Tensor,
    applies: Tensor | None,
) -> None:
    applies = _always() if applies is None else applies
    operator(part.weight, *part.states, gradient, scalars, _group(part.group), _limits(limits), applies)


def unscale(self: GroupOptimizer, gradients: tuple[Tensor, ...], scale: Tensor) -> tuple[Tensor, ...]:
    unscaled = ()
    for gradient in gradients:
        unscaled += (_unscaled(gradient, scale),)
    return unscaled


def write_half(copy: Parameter, weight: Parameter) -> None:
    _halved(copy, weight)


# Predicted of an H100: ms of what each row replaces, and of the kernels. Measured alone in float32 / float16, all rows:
# PMT 0.8 / 1.2, MUN 0.5 / 0.8, AGW 0.2 / 0.3.
TABLE = {
    AdamW.update: adamw,  # PMT: 1.1 for 1.0, and 7 launches; MUN: 0.7 for 0.6, and 11 launches
    SGD.update: sgd,  # AGW: 1.0 for 0.2
    GroupOptimizer.unscale: unscale,  # PMT: 1.1 for 0.3, MUN: 0.7 for 0.2, AGW: 0.3 for 0.1
    half.write: write_half,  # PMT: 0.6 for 0.2, AGW: 0.2 for 0.1, MUN: 0.2 for 0.1
}
