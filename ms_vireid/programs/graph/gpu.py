"""Replacements of methods and functions in a graph on a GPU.

Without a row, the compiled step takes more launches, copies, waits or memory, as the comment beside it says: counted on
the stand-in with the papers' batch of 64 (`python parity/benchmark.py --only replacements`).
"""

from functools import cache

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_vireid.models import auxiliary_generator
from ms_vireid.models.prototypes import ModalityPrototypes, accumulated
from ms_vireid.programs import updates
from ms_vireid.programs.graph import common
from ms_vireid.programs.graph.common import product_transposed


class _Joined(nn.Cell):
    """Joins tensors of one shape along an axis by selection. At every call, Concat copies its tensors' addresses to the
    device, which waits for them."""

    def construct(self, parts: tuple[Tensor, ...], axis: int) -> Tensor:
        shape, count = parts[0].shape, len(parts)
        joined = parts[count - 1].unsqueeze(axis)
        for i in range(count - 1):
            joined = ops.where(_is_place(i, count, axis, len(shape) + 1), parts[i].unsqueeze(axis), joined)
        return joined.reshape(*shape[:axis], count * shape[axis], *shape[axis + 1 :])

    def bprop(self, parts: tuple[Tensor, ...], axis: int, _out: Tensor, gradient: Tensor) -> tuple:
        size = parts[0].shape[axis]
        grad_parts = ()
        for i in range(len(parts)):
            grad_parts += (ops.narrow(gradient, axis, i * size, size),)
        return grad_parts, 0


@ops.constexpr
@cache
def _is_place(i: int, count: int, axis: int, ndim: int) -> Tensor:
    """Mark the i-th of `count` places along one of `ndim` axes: bool [1, ..., count, ..., 1]."""
    return Tensor((np.arange(count) == i).reshape(-1, *[1] * (ndim - axis - 1)))


_joined = _Joined()
_concat = ops.concat
_MOST_JOINED = 3  # tensors: each but the last takes a pass over the result


def scaled(scale: Parameter, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution whose result is scaled by channel: scales the weight instead."""
    by_output = scale[0].unsqueeze(-1)  # [C, 1, 1, 1]; reshaping a weight would copy it
    weight = layer.weight * by_output.astype(layer.weight.dtype)
    return ops.Conv2D(weight.shape[0], 1)(x, weight)


def prototypes(self: ModalityPrototypes, features: Tensor, beta: Tensor, labels: Tensor | None = None) -> Tensor:
    if self.by_identity:
        return ModalityPrototypes.construct(self, features, beta, labels)
    distilled = product_transposed(features.float(), self.projection)
    updated = accumulated(distilled, beta, self.memory, self.seen)
    for parameter, value in ((self.memory, ops.stop_gradient(updated)), (self.seen, 1.0)):
        ops.assign_sub(parameter, parameter - value)
    return updated


def cat(tensors: tuple[Tensor, ...], axis: int = 0) -> Tensor:
    for other in tensors[1:]:
        if other.shape != tensors[0].shape:
            return _concat(tensors, axis)
    if len(tensors) > _MOST_JOINED:
        return _concat(tensors, axis)
    return _joined(tensors, axis)


# Cost of a step without / with each row.
TABLE = {
    **updates.GPU_GRAPH,
    **common.TABLE,
    auxiliary_generator.scaled: scaled,  # MUN: 118 ms for 113
    ModalityPrototypes.construct: prototypes,  # MUN: 15 copies for 11, for 2 launches more
    ops.cat: cat,  # MUN: 21 copies for 11, for 2 launches more
}
