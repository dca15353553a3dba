"""Convolutions as matrix products, of pixels, unfolded windows or Winograd's tiles."""

from collections.abc import Callable

import numpy as np
from mindspore import Tensor

from ms_vireid.backends.numba.base import (
    STRICT,
    Function,
    array,
    empty,
    f32,
    matmul,
    memory,
    padded_plane,
    room,
    threaded,
)
from ms_vireid.backends.numba.feature_maps import by_channel, swapped
from ms_vireid.backends.numba.products import convolve, convolve_by_tiles, count_windows, offset_by
from ms_vireid.backends.numba.vectors import LANES, tiles
from ms_vireid.files.kernel_cache import njit


@njit(inline="always")
def _within(size, place, border, stride, count):
    """The range of windows, of `count`, whose `place` lies within a side of `size` pixels: in window q it is pixel
    q * stride + place - border."""
    offset = border - place
    return max(0, (offset + stride - 1) // stride), min(count, (size - 1 + offset) // stride + 1)


@threaded(**STRICT)
def _unfold(start, stop, x, stride, border, windows):
    """Unfold [C, N, H, W], padded with zeros: the pixel at place (i, j) of each window, [C, k, k, N, h, w]."""
    kernel, _, batch, rows, columns = windows.shape[1:]
    for number in range(start, stop):  # of (c, i): a picture's three channels alone do not divide evenly
        c, i = number // kernel, number % kernel
        top, bottom = _within(x.shape[2], i, border, stride, rows)
        for j in range(kernel):
            left, right = _within(x.shape[3], j, border, stride, columns)
            for n in range(batch):
                pixels = windows[c, i, j, n]
                pixels[:top] = f32(0)
                pixels[bottom:] = f32(0)
                for r in range(top, bottom):
                    line, source = pixels[r], x[c, n, r * stride + i - border]
                    line[:left] = f32(0)
                    line[right:] = f32(0)
                    for q in range(left, right):
                        line[q] = source[q * stride + j - border]


@threaded(**STRICT)
def _fold(start, stop, windows, stride, border, grad_x):
    """The gradient of `_unfold`: [C, k, k, N, h, w] -> [C, N, H, W]."""
    kernel, _, batch, rows, columns = windows.shape[1:]
    for c in range(start, stop):
        grad_x[c] = f32(0)
        for i in range(kernel):
            top, bottom = _within(grad_x.shape[2], i, border, stride, rows)
            for j in range(kernel):
                left, right = _within(grad_x.shape[3], j, border, stride, columns)
                for n in range(batch):
                    for r in range(top, bottom):
                        line, target = windows[c, i, j, n, r], grad_x[c, n, r * stride + i - border]
                        for q in range(left, right):
                            target[q * stride + j - border] += line[q]


def _windows(x: np.ndarray, kernel: int, stride: int, border: int) -> np.ndarray:
    """Unfold [C, N, H, W], padded with `border` zeros -> [C * k * k, N * h * w]; 1x1 windows are x itself."""
    channels, batch = x.shape[:2]
    if (kernel, stride, border) == (1, 1, 0):
        return x.reshape(channels, -1)
    windows = empty((channels, kernel, kernel, batch, *count_windows(x, kernel, stride, border)))
    _unfold(channels * kernel, x, stride, border, memory(windows))
    return memory(windows).reshape(channels * kernel * kernel, -1)


class Convolution(Function):
    """Convolution of float32 [N, C, H, W], weight [D, C, k, k], bias [D] or None, padded with zeros -> [N, D, h, w]."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, border):
        ctx.save_for_backward(x, weight)
        ctx.options = stride, border, bias is not None
        finish = None if bias is None else offset_by(array(bias))
        return swapped(Tensor.from_numpy(convolve(by_channel(x), array(weight), stride, border, finish)))

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        stride, border, biased = ctx.options
        outputs, inputs, kernel, _ = weight.shape
        gradient = by_channel(gradient)
        rows = gradient.reshape(outputs, -1)
        windows = _windows(by_channel(x), kernel, stride, border)
        grad_weight = matmul(rows, windows, transpose_b=True).reshape(weight.shape)
        grad_bias = Tensor(rows.sum(axis=1, dtype=np.float64).astype(np.float32)) if biased else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None, None
        if stride == 1:
            mirrored = array(weight)[:, :, ::-1, ::-1].swapaxes(0, 1)
            grad_x = convolve(gradient, mirrored, 1, kernel - 1 - border)
        else:
            windows = matmul(array(weight).reshape(outputs, -1), rows, transpose_a=True)
            windows = memory(windows).reshape(inputs, kernel, kernel, *gradient.shape[1:])
            grad_x = room((inputs, x.shape[0], *x.shape[2:]))
            _fold(inputs, windows, stride, border, grad_x)
        return swapped(Tensor.from_numpy(grad_x)), grad_weight, grad_bias, None, None


# The gradient of Winograd's filters (vectors.py): of y = A' [(G w G') * (B' x B)] A by w.


@threaded(**STRICT)
def _filters_gradient(start, stop, gradient, grad_weight):
    """G' g G: [16, D, C] -> [D, C, 3, 3]."""
    inputs = grad_weight.shape[1]
    places, lines = np.empty((3, 3, inputs), np.float32), np.empty((3, 4, inputs), np.float32)
    for d in range(start, stop):
        for k in range(4):
            for c in range(inputs):
                both = f32(0.5) * (gradient[4 + k, d, c] + gradient[8 + k, d, c])
                lines[0, k, c] = gradient[k, d, c] + both
                lines[1, k, c] = f32(0.5) * (gradient[4 + k, d, c] - gradient[8 + k, d, c])
                lines[2, k, c] = both + gradient[12 + k, d, c]
        for i in range(3):
            for c in range(inputs):
                both = f32(0.5) * (lines[i, 1, c] + lines[i, 2, c])
                places[i, 0, c] = lines[i, 0, c] + both
                places[i, 1, c] = f32(0.5) * (lines[i, 1, c] - lines[i, 2, c])
                places[i, 2, c] = both + lines[i, 3, c]
        for c in range(inputs):
            for i in range(3):
                for j in range(3):
                    grad_weight[d, c, i, j] = places[i, j, c]


@threaded(**STRICT)
def _tiles(start, stop, x, out):
    """B' x B: [C, N, H, W] -> [16, C, N, rows, columns] of tiles."""
    height, width = x.shape[2:]
    batch, rows, columns = out.shape[2:]
    flat, apart = x.reshape(-1), columns + LANES
    line = np.empty(16 * apart, np.float32)
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        for i in range(rows):
            for j in range(0, columns, LANES):
                tiles(flat, plane * height * width, height, width, 2 * i - 1, 2 * j - 1, line, j, apart)
            for k in range(16):
                for j in range(columns):
                    out[k, c, n, i, j] = line[k * apart + j]


@threaded(**STRICT)
def _untiled_gradient(start, stop, gradient, out):
    """A g A': [D, N, H, W] -> [16, D, N, rows, columns]."""
    batch, rows, columns = out.shape[2:]
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        padded = padded_plane(gradient[c, n], np.int64(0), 2 * rows, 2 * columns, np.bool_(False))
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
    """3x3 convolution with stride 1 and padding 1, without bias: float32 [N, C, H, W], weight [D, C, 3, 3] ->
    [N, D, H, W]."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return swapped(Tensor.from_numpy(convolve_by_tiles(by_channel(x), array(weight))))

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        outputs, inputs = weight.shape[:2]
        gradient, grad_x = by_channel(gradient), None
        if ctx.needs_input_grad[0]:
            grad_x = swapped(Tensor.from_numpy(convolve_by_tiles(gradient, array(weight), transposed=True)))
        spread = _tiled(_untiled_gradient, gradient).reshape(16, outputs, -1)
        spread_x = _tiled(_tiles, by_channel(x)).reshape(16, inputs, -1)
        grad_weight = empty(weight.shape)
        _filters_gradient(outputs, array(matmul(spread, spread_x, transpose_b=True)), memory(grad_weight))
        return grad_x, grad_weight


def _tiled(transform: Callable, x: np.ndarray) -> np.ndarray:
    channels, batch, height, width = x.shape
    out = empty((16, channels, batch, (height + 1) // 2, (width + 1) // 2))
    transform(batch * channels, x, memory(out))
    return memory(out)
