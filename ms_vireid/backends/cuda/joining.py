"""Tensors joined and split by the CUDA kernels.

MindSpore's Concat copies its tensors' addresses to the device at every call, which waits for them, and takes its
gradient apart slice by slice.
"""

import math
from functools import cache

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.functional import is_sequence_value_unknown

from ms_vireid.backends import contiguous
from ms_vireid.backends.cuda.declarations import constants
from ms_vireid.backends.cuda.operators import made
from ms_vireid.models import base, mun
from ms_vireid.replaceable import Replacement

# What is not for the kernels goes to what they replace.
_concat, _stack = ops.concat, ops.stack
_in_parts, _by_modality, _with_gaps = mun.in_parts, base.by_modality, contiguous.join
_FLOATS = (ms.float32, ms.float16)
_each = ops.HyperMap()  # not a loop: MindSpore's compiler would nest a level deeper at each iteration


@ops.constexpr
@cache
def _join(axis: int) -> ops.Custom:
    def shape(first, *others):
        length = first[axis] + sum(other[axis] for other in others)
        return (*first[:axis], length, *first[axis + 1 :])

    return made("join", {"axis": axis}, shape, lambda dtype, *_: dtype)


@ops.constexpr
@cache
def _split(shapes: tuple[tuple[int, ...], ...], axis: int) -> ops.Custom:
    return made("split", {"axis": axis}, lambda _: shapes, lambda dtype: (dtype,) * len(shapes))


@ops.constexpr
@cache
def _join_aligned(given: ms.Type, dtype: ms.Type) -> ops.Custom:
    def shape(*shapes):
        aligned = constants()["ALIGNED"]
        return (sum(-(-math.prod(shape) // aligned) * aligned for shape in shapes),)

    return made("join_aligned" if given == dtype else "join_aligned_as_float", {}, shape, lambda *_: dtype)


def _shapes(tensors: tuple[Tensor, ...]) -> tuple[tuple[int, ...], ...]:
    return _each(_shape, tensors)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """(-1,) if it is not known when a graph is compiled."""
    if is_sequence_value_unknown(tensor.shape):
        return (-1,)
    return tensor.shape


def _type(tensor: Tensor) -> ms.Type:
    return tensor.dtype


class Join(nn.Cell):
    """Tensors of one type and of shapes that differ in the length of one axis, along that axis."""

    def construct(self, tensors: tuple[Tensor, ...], axis: int) -> Tensor:
        return _join(axis)(*tensors)

    def bprop(self, tensors: tuple[Tensor, ...], axis: int, _out: Tensor, gradient: Tensor) -> tuple:
        return _split(_shapes(tensors), axis)(gradient), 0


class Split(nn.Cell):
    """A tensor's neighbouring parts of these shapes, which differ in the length of one axis, along that axis."""

    def construct(self, x: Tensor, shapes: tuple[tuple[int, ...], ...], axis: int) -> tuple[Tensor, ...]:
        return _split(shapes, axis)(x)

    def bprop(
        self, _x: Tensor, _shapes: tuple, axis: int, _out: tuple[Tensor, ...], gradients: tuple[Tensor, ...]
    ) -> tuple:
        return _join(axis)(*gradients), 0, 0


_joined, separated = Join(), Split()


def _are_floats(tensors: tuple[Tensor, ...]) -> bool:
    """Whether all are of one type that the kernels copy."""
    return len(tensors) > 0 and tensors[0].dtype in _FLOATS and _are_one(_each(_type, tensors))


@ops.constexpr
def _are_one(types: tuple[ms.Type, ...]) -> bool:
    return all(each == types[0] for each in types)


@ops.constexpr
def _fit(shapes: tuple[tuple[int, ...], ...], axis: int) -> bool:
    """Whether there is this axis, no shape is empty or unknown, and they differ in that axis alone."""
    ndim = len(shapes[0])
    if not -ndim <= axis < ndim or any(side < 1 for shape in shapes for side in shape):
        return False
    axis %= ndim
    return len({(*shape[:axis], *shape[axis + 1 :], len(shape)) for shape in shapes}) == 1


def cat(tensors: tuple[Tensor, ...] | list[Tensor], axis: int = 0) -> Tensor:
    tensors = tuple(tensors)
    if not _are_floats(tensors) or not _fit(_shapes(tensors), axis):
        return _concat(tensors, axis)
    return _joined(tensors, axis % tensors[0].ndim)


def in_parts(rows: Tensor, count: int) -> tuple[Tensor, ...]:
    if rows.dtype not in _FLOATS or rows.shape[0] % count != 0 or rows.shape[0] <= count:
        return _in_parts(rows, count)
    return separated(rows, ((count, *rows.shape[1:]),) * (rows.shape[0] // count), 0)


def by_modality(images: Tensor, parts: int) -> tuple[Tensor, ...]:
    visible, (count, *shape) = base.visible_rows(images.shape[0], parts), images.shape
    if images.dtype not in _FLOATS:
        return _by_modality(images, parts)
    return separated(images, ((visible, *shape), (count - visible, *shape)), 0)


def stack(tensors: tuple[Tensor, ...] | list[Tensor], axis: int = 0) -> Tensor:
    tensors = tuple(tensors)
    if not _are_floats(tensors) or not _are_alike(_shapes(tensors), axis):
        return _stack(tensors, axis)
    shape, ndim = tensors[0].shape, tensors[0].ndim
    axis = axis % (ndim + 1)
    if axis == ndim:
        return _joined(_each(_column, tensors), axis)
    return _joined(tensors, axis).reshape((*shape[:axis], len(tensors), *shape[axis:]))


def _column(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(-1)


@ops.constexpr
def _are_alike(shapes: tuple[tuple[int, ...], ...], axis: int) -> bool:
    """Whether the shapes are the same, none is empty or unknown, and a stack of them has this axis."""
    ndim = len(shapes[0]) + 1
    return -ndim <= axis < ndim and len(set(shapes)) == 1 and min(shapes[0], default=1) > 0


def aligned(tensors: tuple[Tensor, ...], gaps: tuple[tuple[int, int], ...], dtype: ms.Type) -> Tensor:
    """The kernel knows the gaps."""
    narrowed = tensors[0].dtype == ms.float32 and dtype == ms.float16
    if narrowed or dtype not in _FLOATS or not _are_floats(tensors) or not _are_aligned(_shapes(tensors), gaps):
        return _with_gaps(tensors, gaps, dtype)
    return _join_aligned(tensors[0].dtype, dtype)(*tensors)


@ops.constexpr
def _are_aligned(shapes: tuple[tuple[int, ...], ...], gaps: tuple[tuple[int, int], ...]) -> bool:
    expected = ((i, -math.prod(shape) % constants()["ALIGNED"]) for i, shape in enumerate(shapes, 1))
    return tuple(gaps) == tuple((i, gap) for i, gap in expected if gap)


# Costs: without the rows a step waits for 5 to 14 copies of addresses. Their kernels take, in float32 / float16 on an
# H100, 2.0 / 1.1 ms of MUN's step, 0.3 / 0.3 of PMT's and 0.2 / 0.1 of AGW's. ops.concat stays MindSpore's: in a bprop
# (engine/distributed.py) a graph does not know its tensors' types.
TABLE = {
    ops.cat: Replacement(cat, "copies of addresses, and waits for them"),
    ops.stack: Replacement(stack, "one copy"),
    mun.in_parts: Replacement(in_parts, "MUN: 30 launches"),
    base.by_modality: Replacement(by_modality),
    contiguous.join: Replacement(aligned, "copies of addresses, and waits for them"),
}
