"""Max pooling and GeM."""

import numpy as np
from mindspore import Tensor

from ms_vireid.backends.numba.base import STRICT, SUMS, Function, array, empty, f32, memory, room, threaded
from ms_vireid.backends.numba.feature_maps import by_channel, new_map, rows_by_channel, swapped


@threaded(**STRICT)
def _max_pool(start, stop, x, y):
    """Pool planes [P, H, W]; NaN counts as larger than any number."""
    _, height, width = x.shape
    largest = np.empty(width, np.float32)  # of the window's rows, by column
    for p in range(start, stop):
        for r in range(y.shape[1]):
            top = max(2 * r - 1, 0)
            for c in range(width):  # assigning the whole row would take two seconds to compile
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
def _max_pool_gradient(start, stop, x, y, gradient, grad_x):
    """Add to the first of a window's largest numbers, row by row."""
    width = x.shape[2]
    for p in range(start, stop):
        grad_x[p] = f32(0)
        for r in range(y.shape[1]):
            for q in range(y.shape[2]):
                i, j, last = max(2 * r - 1, 0), max(2 * q - 1, 0), min(2 * q + 2, width)
                while x[p, i, j] != y[p, r, q] and x[p, i, j] == x[p, i, j]:
                    j += 1
                    if j == last:
                        i, j = i + 1, max(2 * q - 1, 0)
                grad_x[p, i, j] += gradient[p, r, q]


def max_pool(x: np.ndarray) -> np.ndarray:
    """[C, N, H, W] -> [C, N, H / 2, W / 2], rounded up."""
    channels, batch, height, width = x.shape
    y = room((channels, batch, (height + 1) // 2, (width + 1) // 2))
    _max_pool(channels * batch, x.reshape(-1, height, width), y.reshape(-1, *y.shape[2:]))
    return y


class MaxPool(Function):
    """3x3 windows with stride 2 and padding 1: float32 [N, C, H, W] -> [N, C, H / 2, W / 2], rounded up."""

    @staticmethod
    def forward(ctx, x):
        y = swapped(Tensor.from_numpy(max_pool(by_channel(x))))
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, y = ctx.saved_tensors
        grad_x, out = new_map(x.shape)
        planes = map(_planes, (x, y, gradient))
        _max_pool_gradient(x.shape[0] * x.shape[1], *planes, out.reshape(-1, *x.shape[2:]))
        return grad_x


def _planes(x: Tensor) -> np.ndarray:
    return by_channel(x).reshape(-1, *x.shape[2:])


@threaded(**SUMS)
def _cubic_gem(start, stop, x, eps, means, roots):
    """[C, N, L] -> [N, C] each. Includes the root: MindSpore's is not bitwise reproducible."""
    for c in range(start, stop):
        for n in range(x.shape[1]):
            total = f32(0)
            for i in range(x.shape[2]):
                total += x[c, n, i] * x[c, n, i] * x[c, n, i]
            means[n, c] = total / f32(x.shape[2]) + eps
            roots[n, c] = means[n, c] ** f32(1 / 3)


@threaded(**STRICT)
def _cubic_gem_gradient(start, stop, x, means, roots, gradient, grad_x):
    for c in range(start, stop):
        for n in range(x.shape[1]):
            factor = gradient[n, c] * roots[n, c] / (means[n, c] * f32(x.shape[2]))
            for i in range(x.shape[2]):
                grad_x[c, n, i] = factor * x[c, n, i] * x[c, n, i]


class CubicGeM(Function):
    """(mean(x^3) + eps)^(1/3) over H and W: float32 [N, C, H, W] -> [N, C]."""

    @staticmethod
    def forward(ctx, x, eps):
        means, roots = empty(x.shape[:2]), empty(x.shape[:2])
        rows = rows_by_channel(x)
        _cubic_gem(len(rows), rows, f32(eps), memory(means), memory(roots))
        ctx.save_for_backward(x, means, roots)
        return roots

    @staticmethod
    def backward(ctx, gradient):
        x, means, roots = ctx.saved_tensors
        grad_x, grad_rows = new_map(x.shape)
        arrays = array(means), array(roots), array(gradient)
        _cubic_gem_gradient(len(grad_rows), rows_by_channel(x), *arrays, grad_rows)
        return grad_x, None
