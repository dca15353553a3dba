"""Tensors joined and split by the CUDA kernels.

MindSpore's Concat copies its tensors' addresses to the device at every call, which waits for them, and takes its
gradient apart slice by slice.
"""

import math
from functools import cache

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_vireid.models import base, mun
from ms_vireid.programs import contiguous
from ms_vireid.programs.cuda.declarations import constants
from ms_vireid.programs.cuda.operators import made

_concat, _stack = ops.concat, ops.stack


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
    shapes = ()
    for tensor in tensors:
        shapes += (tensor.shape,)
    return shapes


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


def _of_one_type(tensors: tuple[Tensor, ...]) -> bool:
    dtype = tensors[0].dtype
    for tensor in tensors:
        if tensor.dtype != dtype:
            return False
    return dtype in (ms.float32, ms.float16)


def cat(tensors: tuple[Tensor, ...], axis: int = 0) -> Tensor:
    if not _of_one_type(tensors):
        return _concat(tensors, axis)
    return _joined(tensors, axis % tensors[0].ndim)


def in_parts(rows: Tensor, count: int) -> tuple[Tensor, ...]:
    if rows.shape[0] == count:
        return (rows,)
    return separated(rows, ((count, *rows.shape[1:]),) * (rows.shape[0] // count), 0)


def by_modality(images: Tensor, parts: int) -> tuple[Tensor, ...]:
    visible, (count, *shape) = base.visible_rows(images.shape[0], parts), images.shape
    return separated(images, ((visible, *shape), (count - visible, *shape)), 0)


def stack(tensors: tuple[Tensor, ...], axis: int = 0) -> Tensor:
    if not _of_one_type(tensors):
        return _stack(tensors, axis)
    rows = ()
    for tensor in tensors:
        rows += (tensor.unsqueeze(axis),)
    return cat(rows, axis)


def aligned(tensors: tuple[Tensor, ...], _gaps: tuple[tuple[int, int], ...], dtype: ms.Type) -> Tensor:
    """The kernel knows the gaps."""
    return _join_aligned(tensors[0].dtype, dtype)(*tensors)


# Predicted of an H100 in float32 / float16: ms of what each row replaces, and of the kernels. With the waits for 5 to
# 14 copies of addresses MUN's step takes 7.0 ms less, PMT's 2.5 and AGW's 1.2.
# Measured alone, all rows: MUN 2.0 / 1.1, PMT 0.3 / 0.3, AGW 0.2 / 0.1; since then BatchNorm joins MUN's pyramids.
# ops.concat stays MindSpore's: in a bprop (engine/distributed.py) a graph does not know its tensors' types.
TABLE = {
    ops.cat: cat,  # MUN: 5.5 / 5.2 for 1.5 / 0.8, AGW: 0.2 for 0.1, PMT: 0.2 for 0.1
    ops.stack: stack,  # one copy less
    mun.in_parts: in_parts,  # MUN: 30 launches less
    base.by_modality: by_modality,  # AGW and MUN: 0.15 for 0.03
    contiguous.join: aligned,  # PMT: 3.0 / 2.7 for 0.3 / 0.2, AGW: 1.3 / 0.7 for 0.1, MUN: 1.6 / 0.9 for 0.2
}
