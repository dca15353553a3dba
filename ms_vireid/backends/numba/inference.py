"""A ResNet's blocks, and AGW's non-local ones, in evaluation without gradients.

Maps are arrays [C, N, H, W]. What follows a convolution is computed as its result is made: BatchNorm with its running
averages, the shortcut, ReLU. BatchNorm is a slope and an offset of each channel, computed for each batch: weights are
only read.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Tensor

from ms_vireid.backends.numba.base import f32, room
from ms_vireid.backends.numba.feature_maps import by_channel, swapped
from ms_vireid.backends.numba.pooling import max_pool
from ms_vireid.backends.numba.products import Finish, convolve, convolve_by_tiles, multiply, offset_by

Part = Callable[[np.ndarray], np.ndarray]  # a block: [C, N, H, W] -> [D, N, h, w]


class Layer(NamedTuple):
    """A convolution with its BatchNorm. weight: [D, C, k, k]. slope, offset: [D], lengthened by `to_rows`."""

    weight: np.ndarray
    stride: int
    border: int
    by_tiles: bool
    slope: np.ndarray
    offset: np.ndarray

    def __call__(self, x: np.ndarray, shortcut: np.ndarray | None = None, relu: bool = True) -> np.ndarray:
        added = self.slope if shortcut is None else shortcut.reshape(-1)
        finish = Finish(self.slope, self.offset, added, shortcut is not None, f32(0 if relu else -np.inf))
        if self.by_tiles:
            return convolve_by_tiles(x, self.weight, finish)
        return convolve(x, self.weight, self.stride, self.border, finish)


def stem(layer: Layer) -> Part:
    return lambda x: max_pool(layer(x))


def bottleneck(first: Layer, second: Layer, third: Layer, projection: Layer | None = None) -> Part:
    def compute(x):
        shortcut = x if projection is None else projection(x, relu=False)
        return third(second(first(x)), shortcut)

    return compute


def non_local(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], last: Layer) -> Part:
    """weights, biases: of g, theta and phi, [width, C, 1, 1] and [width] each."""
    weight, bias = np.concatenate(weights), np.concatenate(biases)
    width = len(weight) // 3

    def compute(x):
        _, count, *sides = x.shape
        maps = convolve(x, weight, 1, 0, offset_by(bias)).reshape(3, width, count, -1)
        y = room((width, count, maps.shape[3]))
        for n in range(count):
            g, theta, phi = maps[:, :, n]  # [width, L] each
            y[:, n] = multiply(multiply(g, phi.T) / f32(g.shape[1]), theta)
        return last(y.reshape(width, count, *sides), x, relu=False)

    return compute


def infer(parts: Iterable[Part], x: Tensor) -> Tensor:
    """float32 [N, C, H, W] -> the last part's map [N, D, h, w]."""
    maps = by_channel(x)
    for compute in parts:
        maps = compute(maps)
    return swapped(Tensor.from_numpy(maps))
