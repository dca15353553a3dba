"""The kernels' layout of feature maps: tensors [N, C, H, W] that are views of memory [C, N, H, W].

A channel of the whole batch is then one row, and a convolution one matrix product. Other operators see an ordinary
tensor [N, C, H, W].
"""

import numpy as np
from mindspore import Tensor, mint

from ms_vireid.backends.numba.base import Function, array, empty, memory, shaped, threaded


def swapped(x: Tensor) -> Tensor:
    """View [C, N, H, W] as [N, C, H, W], or the other way round."""
    return mint.permute(x, (1, 0, 2, 3))


def by_channel(x: Tensor) -> np.ndarray:
    """[N, C, H, W] as contiguous [C, N, H, W], to read: its memory if a kernel made it, else a copy."""
    batch, channels, height, width = x.shape
    area = height * width
    if tuple(x.stride()) == (area, batch * area, width, 1) or (batch == 1 and x.is_contiguous()):
        return shaped(x, (channels, batch, height, width))
    y = memory(empty((channels, batch, height, width)))
    _swap(channels, array(x).reshape(batch, channels, area), y.reshape(channels, batch, area))
    return y


def rows_by_channel(x: Tensor) -> np.ndarray:
    """[N, C, H, W] as [C, N, H * W], to read."""
    y = by_channel(x)
    return y.reshape(*y.shape[:2], -1)


def new_map(shape: tuple[int, ...]) -> tuple[Tensor, np.ndarray]:
    """Allocate a tensor [N, C, H, W]; return it and its memory [C, N, H * W], to write."""
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
    """Gives a map, float32 [N, C, H, W], to `count` branches and sums their gradients in this layout, which MindSpore's
    sum would lose."""

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
