"""Replacements of methods and functions in a graph on a GPU.

Without a row, the compiled step takes more launches, copies, waits or memory, as the row's cost says: counted on the
stand-in with the papers' batch of 64 (`python parity/benchmark.py --only launches`).
"""

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_vireid.backends import updates
from ms_vireid.backends.graph import common
from ms_vireid.backends.graph.common import product_transposed
from ms_vireid.models import auxiliary_generator, layers
from ms_vireid.models.prototypes import ModalityPrototypes, accumulated
from ms_vireid.replaceable import Replacement


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
_JOINED = (ms.float32, ms.float16)


def scaled(scale: Parameter, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution whose result is scaled by channel: scales the weight instead."""
    if not isinstance(layer, nn.Conv2d):
        return scale * layer(x)
    if layer.has_bias or not _is_pointwise(layer.__class__, layer.conv2d, layer.weight.shape):
        return scale * layer(x)
    by_output = scale[0].unsqueeze(-1)  # [C, 1, 1, 1]; reshaping a weight would copy it
    weight = layer.weight * by_output.astype(layer.weight.dtype)
    return ops.Conv2D(weight.shape[0], 1)(x, weight)


@ops.constexpr(reuse_result=False)
def _is_pointwise(kind: type, operator: ops.Primitive, shape: tuple[int, ...]) -> bool:
    """Whether a convolution takes each pixel by itself. (A graph has no cell as such, unless it is `self`.)"""
    if kind is not nn.Conv2d or type(operator) is not ops.Conv2D:
        return False
    of, ones = operator.attrs, (1,) * 4
    alone = shape[2:] == (1, 1) and of["stride"] == ones and of["pad"] == (0,) * 4
    return alone and of["pad_mode"] != "same" and of["groups"] == 1 and of["data_format"] == "NCHW"


def prototypes(self: ModalityPrototypes, features: Tensor, beta: Tensor, labels: Tensor | None = None) -> Tensor:
    if self.by_identity or features.shape != self.shape:
        return ModalityPrototypes.construct(self, features, beta, labels)
    distilled = product_transposed(features.float(), self.projection)
    updated = accumulated(distilled, beta, self.memory, self.seen)
    for parameter, value in ((self.memory, ops.stop_gradient(updated)), (self.seen, 1.0)):
        ops.assign_sub(parameter, parameter - value)
    return updated


def cat(tensors: tuple[Tensor, ...], axis: int = 0) -> Tensor:
    if not isinstance(tensors, tuple) or not 1 < len(tensors) <= _MOST_JOINED or not isinstance(axis, int):
        return _concat(tensors, axis)
    first = tensors[0]
    for other in tensors[1:]:
        if other.shape != first.shape or other.dtype != first.dtype:
            return _concat(tensors, axis)
    if first.dtype not in _JOINED or first.size == 0 or not -first.ndim <= axis < first.ndim:
        return _concat(tensors, axis)
    return _joined(tensors, axis % first.ndim)


TABLE = {
    **updates.GPU_GRAPH,
    **common.TABLE,
    layers.LayerNorm.construct: Replacement(common.layer_norm),
    auxiliary_generator.scaled: Replacement(scaled),
    ModalityPrototypes.construct: Replacement(prototypes, "MUN: 15 copies for 11, for 2 launches more"),
    ops.cat: Replacement(cat, "MUN: 21 copies for 11, for 2 launches more"),
}
