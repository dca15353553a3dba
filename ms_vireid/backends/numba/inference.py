"""A ResNet's blocks, and AGW's non-local ones, in evaluation without gradients.

Maps are arrays [C, N, H, W]. A few pictures at a time go through all blocks of one resolution, so that their maps stay
in the cache. What follows a product is computed in its place, as it is made: BatchNorm with its running averages, the
shortcut, ReLU. BatchNorm is a slope and an offset of each channel, computed for each batch: weights are only read.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Tensor

from ms_vireid.backends.numba.base import STRICT, empty, f32, matmul, memory, threaded
from ms_vireid.backends.numba.convolution import multiply_tiles, multiply_windows, untile
from ms_vireid.backends.numba.feature_maps import by_channel, swapped
from ms_vireid.backends.numba.pooling import max_pool

CACHED = 12 << 20  # bytes of a group's first map, as measured


class Layer(NamedTuple):
    """A convolution with its BatchNorm. weight: [D, C, k, k]. slope, offset: [D]."""

    weight: np.ndarray
    stride: int
    border: int
    by_tiles: bool
    slope: np.ndarray
    offset: np.ndarray

    def __call__(self, x: np.ndarray, shortcut: np.ndarray | None = None, relu: bool = True) -> np.ndarray:
        outputs, inputs = self.weight.shape[:2]
        if len(x) != inputs:
            raise ValueError(f"maps must have {inputs} channels, not {len(x)}")
        if self.by_tiles:
            y = memory(empty((outputs, *x.shape[1:])))
            _, products = multiply_tiles(x, self.weight)
            untile(outputs * x.shape[1], products, self.slope, self.offset, relu, y)
            return y
        y = multiply_windows(x, self.weight, self.stride, self.border)
        rows = y.reshape(outputs, -1)
        added = rows if shortcut is None else shortcut.reshape(outputs, -1)
        _finish(outputs, rows, self.slope, self.offset, added, shortcut is not None, relu)
        return y


class Part(NamedTuple):
    """A block. compute: [C, N, H, W] -> [D, N, h, w]. shrinks: whether its map is smaller."""

    compute: Callable[[np.ndarray], np.ndarray]
    shrinks: bool = False


def stem(layer: Layer) -> Part:
    return Part(lambda x: max_pool(layer(x)), True)


def bottleneck(first: Layer, second: Layer, third: Layer, projection: Layer | None = None) -> Part:
    def compute(x):
        shortcut = x if projection is None else projection(x, relu=False)
        return third(second(first(x)), shortcut)

    return Part(compute, second.stride > 1)


def non_local(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], last: Layer) -> Part:
    """weights, biases: of g, theta and phi, [width, C, 1, 1] and [width] each."""
    weight, bias = np.concatenate(weights), np.concatenate(biases)
    width = len(weight) // 3
    branches = Layer(weight, 1, 0, False, np.ones_like(bias), bias)

    def compute(x):
        _, count, *sides = x.shape
        maps = branches(x, relu=False).reshape(3, width, count, -1)
        g, theta, phi = (np.ascontiguousarray(one.swapaxes(0, 1)) for one in maps)  # [N, width, L] each
        context = memory(matmul(g, phi, transpose_b=True)) / f32(g.shape[2])
        y = memory(matmul(context, theta)).swapaxes(0, 1)
        return last(np.ascontiguousarray(y).reshape(width, count, *sides), x, relu=False)

    return Part(compute)


def infer(parts: Sequence[Part], x: Tensor) -> Tensor:
    """float32 [N, C, H, W] -> the last part's map [N, D, h, w]."""
    maps, first = by_channel(x), 0
    for last, part in enumerate(parts, 1):
        if part.shrinks or last == len(parts):
            maps = _by_groups(parts[first:last], maps)
            first = last
    return swapped(Tensor.from_numpy(maps))


def _by_groups(parts: Sequence[Part], maps: np.ndarray) -> np.ndarray:
    """Take a few pictures of [C, N, H, W] at a time through some parts."""
    count = maps.shape[1]
    size = max(1, CACHED // maps[:, :1].nbytes)
    if size >= count:
        return _through(parts, maps)
    whole = None
    for start in range(0, count, size):
        group = _through(parts, _copy(maps[:, start : start + size]))
        if whole is None:
            whole = memory(empty((len(group), count, *group.shape[2:])))
        _place(len(group), group, start, whole)
    return whole


def _through(parts: Sequence[Part], maps: np.ndarray) -> np.ndarray:
    for part in parts:
        maps = part.compute(maps)
    return maps


def _copy(maps: np.ndarray) -> np.ndarray:
    out = memory(empty(maps.shape))
    out[...] = maps
    return out


@threaded()
def _place(start, stop, group, first, whole):
    for c in range(start, stop):
        for n in range(group.shape[1]):
            for r in range(group.shape[2]):
                for q in range(group.shape[3]):
                    whole[c, first + n, r, q] = group[c, n, r, q]


@threaded(**STRICT)
def _finish(start, stop, y, slope, offset, shortcut, adds, relu):
    """y [D, L] in its place."""
    for d in range(start, stop):
        for i in range(y.shape[1]):
            value = y[d, i] * slope[d] + offset[d]
            if adds:
                value += shortcut[d, i]
            y[d, i] = f32(0) if relu and value < f32(0) else value
