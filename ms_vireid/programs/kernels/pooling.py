"""Max pooling, and the mean of GeM."""

import numpy as np
from mindspore import Tensor

from ms_vireid.programs.kernels.base import STRICT, SUMS, Function, array, empty, f32, memory, threaded
from ms_vireid.programs.kernels.feature_maps import by_channel, new_map, rows_by_channel


@threaded(**STRICT)
def _max_pool(start, stop, x, y):
    """Of planes [P, H, W]; a NaN is larger than any number."""
    _, height, width = x.shape
    largest = np.empty(width, np.float32)  # of a column of the window
    for p in range(start, stop):
        for r in range(y.shape[1]):
            top = max(2 * r - 1, 0)
            for c in range(width):  # an assignment of the whole row would compile for two seconds
                largest[c] = x[p, top, c]
            for i in range(top + 1, min(2 * r + 2, height)):
                line = x[p, i]
                for c in range(width):
                    largest[c] = line[c] if line[c] > largest[c] or line[c] != line[c] else largest[c]
            for q in range(y.shape[2]):
                best = largest[2 * q]
                if q > 0:
                    left = largest[2 * q - 1]
                    best = left if left > best or left != left else best
                if 2 * q + 1 < width:
                    right = largest[2 * q + 1]
                    best = right if right > best or right != right else best
                y[p, r, q] = best


@threaded(**STRICT)
def _max_pool_derivative(start, stop, x, y, gradient, of_x):
    """To the first of a window's largest numbers, row by row."""
    width = x.shape[2]
    for p in range(start, stop):
        of_x[p] = f32(0)
        for r in range(y.shape[1]):
            for q in range(y.shape[2]):
                i, j, last = max(2 * r - 1, 0), max(2 * q - 1, 0), min(2 * q + 2, width)
                while x[p, i, j] != y[p, r, q] and x[p, i, j] == x[p, i, j]:
                    j += 1
                    if j == last:
                        i, j = i + 1, max(2 * q - 1, 0)
                of_x[p, i, j] += gradient[p, r, q]


class MaxPool(Function):
    """3x3 windows with stride 2 and padding 1: float32 [N, C, H, W] -> [N, C, H / 2, W / 2], rounded up."""

    @staticmethod
    def forward(ctx, x):
        batch, channels, height, width = x.shape
        y, out = new_map((batch, channels, (height + 1) // 2, (width + 1) // 2))
        ctx.save_for_backward(x, y)
        _max_pool(batch * channels, _planes(x), out.reshape(-1, *y.shape[2:]))
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, y = ctx.saved_tensors
        of_x, out = new_map(x.shape)
        given = map(_planes, (x, y, gradient))
        _max_pool_derivative(x.shape[0] * x.shape[1], *given, out.reshape(-1, *x.shape[2:]))
        return of_x


def _planes(x: Tensor) -> np.ndarray:
    return by_channel(x).reshape(-1, *x.shape[2:])


@threaded(**SUMS)
def _mean_of_cubes(start, stop, x, means):
    """[C, N, L] -> [N, C]."""
    for c in range(start, stop):
        for n in range(x.shape[1]):
            total = f32(0)
            for i in range(x.shape[2]):
                total += x[c, n, i] * x[c, n, i] * x[c, n, i]
            means[n, c] = total / f32(x.shape[2])


@threaded(**STRICT)
def _mean_of_cubes_derivative(start, stop, x, gradient, of_x):
    for c in range(start, stop):
        for n in range(x.shape[1]):
            factor = gradient[n, c] * f32(3) / f32(x.shape[2])
            for i in range(x.shape[2]):
                of_x[c, n, i] = factor * x[c, n, i] * x[c, n, i]


class MeanOfCubes(Function):
    """Over H and W: float32 [N, C, H, W] -> [N, C]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        means = empty(x.shape[:2])
        rows = rows_by_channel(x)
        _mean_of_cubes(len(rows), rows, memory(means))
        return means

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        of_x, of_rows = new_map(x.shape)
        _mean_of_cubes_derivative(len(of_rows), rows_by_channel(x), array(gradient), of_rows)
        return of_x
