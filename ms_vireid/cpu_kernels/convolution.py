"""Convolutions without bias: MindSpore's, with a faster derivative, and Winograd's."""

from collections.abc import Callable
from functools import cache

import numpy as np
from mindspore import Tensor, ops

from ms_vireid.cpu_kernels.base import (
    STRICT,
    Conv2DBackpropFilter,
    Function,
    array,
    batch_matmul,
    empty,
    f32,
    memory,
    padded_plane,
    threaded,
)


@cache
def _convolution(kind: Callable, channels: int, kernel: int, stride: int) -> ops.Primitive:
    """ops.Conv2D or one of its derivatives, with "same" padding."""
    pad = kernel // 2
    how = {} if kind is ops.Conv2D else {"pad_list": (pad,) * 4}
    return kind(channels, kernel, pad_mode="pad", pad=pad, stride=stride, **how)


@threaded(**STRICT)
def _turned(start, stop, weight, out):
    """[D, C, k * k] -> [C, D, k * k] with each kernel turned by half a circle; in tiles that the cache holds."""
    outer, inner, size = weight.shape
    for tile in range(start, stop):
        for first in range(0, outer, 16):
            for c in range(tile * 16, min(inner, tile * 16 + 16)):
                for d in range(first, min(outer, first + 16)):
                    for i in range(size):
                        out[c, d, i] = weight[d, c, size - 1 - i]


class Convolution(Function):
    """Without bias, "same" padding: float32 [N, C, H, W], weight [D, C, k, k] -> [N, D, H / stride, W / stride].

    With stride 1 the derivative by x is a convolution by the turned weight, at twice the operator's speed.
    """

    @staticmethod
    def forward(ctx, x, weight, stride):
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        channels, _, kernel, _ = weight.shape
        return _convolution(ops.Conv2D, channels, kernel, stride)(x, weight)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        outputs, inputs, kernel, _ = weight.shape
        of_x = None
        if ctx.needs_input_grad[0] and ctx.stride == 1:
            turned = empty((inputs, outputs, kernel, kernel))
            kernels = array(weight).reshape(outputs, inputs, -1), memory(turned).reshape(inputs, outputs, -1)
            _turned(-(-inputs // 16), *kernels)
            of_x = _convolution(ops.Conv2D, inputs, kernel, 1)(gradient, turned)
        elif ctx.needs_input_grad[0]:
            of_x = _convolution(ops.Conv2DTranspose, outputs, kernel, ctx.stride)(gradient, weight, x.shape)
        of_weight = _convolution(Conv2DBackpropFilter, outputs, kernel, ctx.stride)(gradient, x, weight.shape)
        return of_x, of_weight, None


# Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray 2016): y = A' [(G w G') * (B' x B)] A for each tile of 2x2
# outputs, where * is, over all tiles and channels, 16 matrix products: 2.25 times fewer multiplications.


@threaded(**STRICT)
def _filters(start, stop, weight, out):
    """G w G': [D, C, 3, 3] -> [16, D, C]."""
    for d in range(start, stop):
        lines = np.empty((4, 3), np.float32)
        for c in range(weight.shape[1]):
            for j in range(3):
                first, second, third = weight[d, c, 0, j], weight[d, c, 1, j], weight[d, c, 2, j]
                lines[0, j] = first
                lines[1, j] = f32(0.5) * (first + third + second)
                lines[2, j] = f32(0.5) * (first + third - second)
                lines[3, j] = third
            for k in range(4):
                first, second, third = lines[k, 0], lines[k, 1], lines[k, 2]
                out[4 * k, d, c] = first
                out[4 * k + 1, d, c] = f32(0.5) * (first + third + second)
                out[4 * k + 2, d, c] = f32(0.5) * (first + third - second)
                out[4 * k + 3, d, c] = third


@threaded(**STRICT)
def _filters_derivative(start, stop, gradient, of_weight):
    """G' g G: [16, D, C] -> [D, C, 3, 3]."""
    for d in range(start, stop):
        lines = np.empty((3, 4), np.float32)
        for c in range(of_weight.shape[1]):
            for k in range(4):
                both = f32(0.5) * (gradient[4 + k, d, c] + gradient[8 + k, d, c])
                lines[0, k] = gradient[k, d, c] + both
                lines[1, k] = f32(0.5) * (gradient[4 + k, d, c] - gradient[8 + k, d, c])
                lines[2, k] = both + gradient[12 + k, d, c]
            for i in range(3):
                both = f32(0.5) * (lines[i, 1] + lines[i, 2])
                of_weight[d, c, i, 0] = lines[i, 0] + both
                of_weight[d, c, i, 1] = f32(0.5) * (lines[i, 1] - lines[i, 2])
                of_weight[d, c, i, 2] = both + lines[i, 3]


@threaded(**STRICT)
def _tiles(start, stop, x, out):
    """B' x B: [N, C, H, W] -> [16, C, N, rows, columns] of tiles."""
    batch, rows, columns = out.shape[2:]
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        padded = padded_plane(x[n, c], 1, 2 * rows + 2, 2 * columns + 2, False)
        lines = np.empty((4, padded.shape[1]), np.float32)
        for i in range(rows):
            for q in range(lines.shape[1]):
                lines[0, q] = padded[2 * i, q] - padded[2 * i + 2, q]
                lines[1, q] = padded[2 * i + 1, q] + padded[2 * i + 2, q]
                lines[2, q] = padded[2 * i + 2, q] - padded[2 * i + 1, q]
                lines[3, q] = padded[2 * i + 1, q] - padded[2 * i + 3, q]
            for k in range(4):
                for j in range(columns):
                    out[4 * k, c, n, i, j] = lines[k, 2 * j] - lines[k, 2 * j + 2]
                    out[4 * k + 1, c, n, i, j] = lines[k, 2 * j + 1] + lines[k, 2 * j + 2]
                    out[4 * k + 2, c, n, i, j] = lines[k, 2 * j + 2] - lines[k, 2 * j + 1]
                    out[4 * k + 3, c, n, i, j] = lines[k, 2 * j + 1] - lines[k, 2 * j + 3]


@threaded(**STRICT)
def _tiles_derivative(start, stop, gradient, of_x):
    """B g B', where tiles overlap summed: [16, C, N, rows, columns] -> [N, C, H, W]."""
    batch, rows, columns = gradient.shape[2:]
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        padded = np.zeros((2 * rows + 2, 2 * columns + 2), np.float32)
        lines = np.empty((4, padded.shape[1]), np.float32)
        for i in range(rows):
            lines[:] = f32(0)
            for k in range(4):
                for j in range(columns):
                    first = gradient[4 * k, c, n, i, j]
                    second = gradient[4 * k + 1, c, n, i, j]
                    third = gradient[4 * k + 2, c, n, i, j]
                    fourth = gradient[4 * k + 3, c, n, i, j]
                    lines[k, 2 * j] += first
                    lines[k, 2 * j + 1] += second - third + fourth
                    lines[k, 2 * j + 2] += second + third - first
                    lines[k, 2 * j + 3] -= fourth
            for q in range(lines.shape[1]):
                padded[2 * i, q] += lines[0, q]
                padded[2 * i + 1, q] += lines[1, q] - lines[2, q] + lines[3, q]
                padded[2 * i + 2, q] += lines[1, q] + lines[2, q] - lines[0, q]
                padded[2 * i + 3, q] -= lines[3, q]
        for r in range(of_x.shape[2]):
            for q in range(of_x.shape[3]):
                of_x[n, c, r, q] = padded[r + 1, q + 1]


@threaded(**STRICT)
def _untiled(start, stop, products, y):
    """A' m A: [16, D, N, rows, columns] -> [N, D, H, W]."""
    batch, rows, columns = products.shape[2:]
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        whole = np.empty((2 * rows, 2 * columns), np.float32)
        lines = np.empty((2, 4, columns), np.float32)
        for i in range(rows):
            for k in range(4):
                for j in range(columns):
                    middle = products[4 + k, c, n, i, j]
                    other = products[8 + k, c, n, i, j]
                    lines[0, k, j] = products[k, c, n, i, j] + middle + other
                    lines[1, k, j] = middle - other - products[12 + k, c, n, i, j]
            for r in range(2):
                for j in range(columns):
                    whole[2 * i + r, 2 * j] = lines[r, 0, j] + lines[r, 1, j] + lines[r, 2, j]
                    whole[2 * i + r, 2 * j + 1] = lines[r, 1, j] - lines[r, 2, j] - lines[r, 3, j]
        for r in range(y.shape[2]):
            for q in range(y.shape[3]):
                y[n, c, r, q] = whole[r, q]


@threaded(**STRICT)
def _untiled_derivative(start, stop, gradient, out):
    """A g A': [N, D, H, W] -> [16, D, N, rows, columns]."""
    batch, rows, columns = out.shape[2:]
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        padded = padded_plane(gradient[n, c], 0, 2 * rows, 2 * columns, False)
        lines = np.empty((4, padded.shape[1]), np.float32)
        for i in range(rows):
            for q in range(lines.shape[1]):
                lines[0, q] = padded[2 * i, q]
                lines[1, q] = padded[2 * i, q] + padded[2 * i + 1, q]
                lines[2, q] = padded[2 * i, q] - padded[2 * i + 1, q]
                lines[3, q] = -padded[2 * i + 1, q]
            for k in range(4):
                for j in range(columns):
                    out[4 * k, c, n, i, j] = lines[k, 2 * j]
                    out[4 * k + 1, c, n, i, j] = lines[k, 2 * j] + lines[k, 2 * j + 1]
                    out[4 * k + 2, c, n, i, j] = lines[k, 2 * j] - lines[k, 2 * j + 1]
                    out[4 * k + 3, c, n, i, j] = -lines[k, 2 * j + 1]


class Winograd(Function):
    """3x3 convolution with stride 1, "same" padding, without bias: float32 [N, C, H, W], weight [D, C, 3, 3] ->
    [N, D, H, W]."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        filters = empty((16, *weight.shape[:2]))
        _filters(len(weight), array(weight), memory(filters))
        tiles = _tiled(_tiles, x)
        products = batch_matmul()(filters, tiles.reshape(16, x.shape[1], -1))
        y = empty((x.shape[0], weight.shape[0], *x.shape[2:]))
        products = array(products).reshape(16, -1, *tiles.shape[2:])
        _untiled(y.shape[0] * y.shape[1], products, memory(y))
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        outputs, inputs = weight.shape[:2]
        spread = _tiled(_untiled_derivative, gradient)
        shape = inputs, *spread.shape[2:]
        spread = spread.reshape(16, outputs, -1)
        of_x = None
        if ctx.needs_input_grad[0]:
            filters = empty((16, inputs, outputs))
            _filters(inputs, array(weight).swapaxes(0, 1), memory(filters))
            of_x = empty(x.shape)
            of_tiles = array(batch_matmul()(filters, spread)).reshape(16, *shape)
            _tiles_derivative(x.shape[0] * inputs, of_tiles, memory(of_x))
        tiles = _tiled(_tiles, x).reshape(16, inputs, -1)
        of_weight = empty(weight.shape)
        _filters_derivative(outputs, array(batch_matmul(transpose_b=True)(spread, tiles)), memory(of_weight))
        return of_x, of_weight


def _tiled(transform: Callable, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    out = empty((16, channels, batch, (height + 1) // 2, (width + 1) // 2))
    transform(batch * channels, array(x), memory(out))
    return out
