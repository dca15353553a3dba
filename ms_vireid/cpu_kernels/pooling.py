"""Max pooling, and the mean of GeM."""

import numpy as np

from ms_vireid.cpu_kernels.base import STRICT, SUMS, Function, array, empty, f32, memory, threaded
from ms_vireid.cpu_kernels.feature_maps import by_channel, new_map, rows_by_channel, swapped


@threaded(**STRICT)
def _max_pool(start, stop, x, y, places):
    _, height, width = x.shape
    largest, place = np.empty(width, np.float32), np.empty(width, np.int32)  # of a column of the window
    for p in range(start, stop):
        for r in range(y.shape[1]):
            top = max(2 * r - 1, 0)
            for c in range(width):
                largest[c], place[c] = x[p, top, c], top
            for i in range(top + 1, min(2 * r + 2, height)):
                for c in range(width):
                    value = x[p, i, c]
                    taken = value > largest[c] or value != value
                    largest[c] = value if taken else largest[c]
                    place[c] = i if taken else place[c]
            for q in range(y.shape[2]):
                best = max(2 * q - 1, 0)
                for c in range(best + 1, min(2 * q + 2, width)):
                    above = largest[c] == largest[best] and place[c] < place[best]  # of equals the first one
                    best = c if largest[c] > largest[best] or largest[c] != largest[c] or above else best
                y[p, r, q] = largest[best]
                places[p, r, q] = place[best] * width + best


@threaded(**STRICT)
def _max_pool_derivative(start, stop, gradient, places, of_x):
    for p in range(start, stop):
        of_x[p] = f32(0)
        for i in range(gradient.shape[1]):
            of_x[p, places[p, i]] += gradient[p, i]


class MaxPool(Function):
    """3x3 windows with stride 2 and padding 1: float32 [N, C, H, W] -> [N, C, H / 2, W / 2], rounded up."""

    @staticmethod
    def forward(ctx, x):
        x = by_channel(x)
        *planes, height, width = ctx.shape = x.shape
        y = empty((*planes, (height + 1) // 2, (width + 1) // 2))
        out = memory(y).reshape(-1, *y.shape[2:])
        ctx.places = np.empty(out.shape, np.int32)
        _max_pool(len(out), x.reshape(-1, height, width), out, ctx.places)
        return swapped(y)

    @staticmethod
    def backward(ctx, gradient):
        of_x = empty(ctx.shape)
        planes = len(ctx.places)
        flat = (a.reshape(planes, -1) for a in (by_channel(gradient), ctx.places, memory(of_x)))
        _max_pool_derivative(planes, *flat)
        return swapped(of_x)


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
