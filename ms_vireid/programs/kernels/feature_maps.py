"""Feature maps as the kernels hand them on: views [N, C, H, W] of memory [C, N, H, W].

A channel of the whole batch is then a row, and a convolution one matrix product. To any other reader such a view is an
ordinary tensor [N, C, H, W].
"""

import numpy as np
from mindspore import Tensor, mint

from ms_vireid.programs.kernels.base import Function, array, empty, memory, shaped, threaded


def swapped(x: Tensor) -> Tensor:
    """[C, N, H, W] as [N, C, H, W], or the other way round, in the same memory."""
    return mint.permute(x, (1, 0, 2, 3))


def by_channel(x: Tensor) -> np.ndarray:
    """To be read: [N, C, H, W] as [C, N, H, W], contiguous: its own memory where a kernel has made it, else a copy."""
    batch, channels, height, width = x.shape
    area = height * width
    if tuple(x.stride()) == (area, batch * area, width, 1):
        return shaped(x, (channels, batch, height, width))
    y = memory(empty((channels, batch, height, width)))
    _swap(channels, array(x).reshape(batch, channels, area), y.reshape(channels, batch, area))
    return y


def rows_by_channel(x: Tensor) -> np.ndarray:
    """To be read: [N, C, H, W] as [C, N, H * W]."""
    y = by_channel(x)
    return y.reshape(*y.shape[:2], -1)


def new_map(shape: tuple[int, ...]) -> tuple[Tensor, np.ndarray]:
    """A tensor [N, C, H, W], and its memory, [C, N, H * W], to be written."""
    batch, channels, *sides = shape
    x = empty((channels, batch, *sides))
    return swapped(x), memory(x).reshape(channels, batch, -1)


@threaded()
def _swap(start, stop, maps, out):
    """[N, C, L] -> [C, N, L]."""
    for c in range(start, stop):
        for n in range(out.shape[1]):
            for i in range(out.shape[2]):
                out[c, n, i] = maps[n, c, i]


@threaded()
def _add(start, stop, x, y, out):
    x, y, out = x[start:stop].reshape(-1), y[start:stop].reshape(-1), out[start:stop].reshape(-1)
    for i in range(out.size):
        out[i] = x[i] + y[i]


class Fork(Function):
    """A map for several branches, float32 [N, C, H, W] -> `count` times the same: MindSpore's sum of their gradients
    would be no view."""

    @staticmethod
    def forward(ctx, x, count):
        return (x,) * count

    @staticmethod
    def backward(ctx, first, *others):
        total, out = new_map(first.shape)
        _add(len(out), rows_by_channel(first), rows_by_channel(others[0]), out)
        for other in others[1:]:
            _add(len(out), out, rows_by_channel(other), out)
        return total, None
