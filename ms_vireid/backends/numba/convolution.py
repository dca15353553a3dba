"""Convolutions as matrix products, of pixels, unfolded windows or Winograd's tiles."""

from collections.abc import Callable

import numpy as np
from mindspore import Tensor

from ms_vireid.backends.numba.base import STRICT, Function, array, empty, f32, matmul, memory, padded_plane, threaded
from ms_vireid.backends.numba.feature_maps import by_channel, swapped
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


def _sides(x: np.ndarray, kernel: int, stride: int, border: int) -> tuple[int, int]:
    """The number of rows and columns of windows in x [..., H, W]."""
    return tuple((side + 2 * border - kernel) // stride + 1 for side in x.shape[2:])


def _windows(x: np.ndarray, kernel: int, stride: int, border: int) -> np.ndarray:
    """Unfold [C, N, H, W], padded with `border` zeros -> [C * k * k, N * h * w]; 1x1 windows are x itself."""
    channels, batch = x.shape[:2]
    if (kernel, stride, border) == (1, 1, 0):
        return x.reshape(channels, -1)
    windows = empty((channels, kernel, kernel, batch, *_sides(x, kernel, stride, border)))
    _unfold(channels * kernel, x, stride, border, memory(windows))
    return memory(windows).reshape(channels * kernel * kernel, -1)


@threaded(**STRICT)
def _add_bias(start, stop, y, bias):
    for c in range(start, stop):
        for i in range(y.shape[1]):
            y[c, i] += bias[c]


def multiply_windows(x: np.ndarray, weight: np.ndarray, stride: int, border: int) -> np.ndarray:
    """Convolve [C, N, H, W] with [D, C, k, k], padded with zeros -> [D, N, h, w]."""
    outputs, _, kernel, _ = weight.shape
    y = matmul(weight.reshape(outputs, -1), _windows(x, kernel, stride, border))
    return memory(y).reshape(outputs, x.shape[1], *_sides(x, kernel, stride, border))


class Convolution(Function):
    """Convolution of float32 [N, C, H, W], weight [D, C, k, k], bias [D] or None, padded with zeros -> [N, D, h, w]."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, border):
        ctx.save_for_backward(x, weight)
        ctx.options = stride, border, bias is not None
        y = multiply_windows(by_channel(x), array(weight), stride, border)
        if bias is not None:
            _add_bias(len(y), y.reshape(len(y), -1), array(bias))
        return swapped(Tensor.from_numpy(y))

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        stride, border, biased = ctx.options
        outputs, inputs, kernel, _ = weight.shape
        rows = by_channel(gradient).reshape(outputs, -1)
        windows = _windows(by_channel(x), kernel, stride, border)
        grad_weight = matmul(rows, windows, transpose_b=True).reshape(weight.shape)
        grad_bias = Tensor(rows.sum(axis=1, dtype=np.float64).astype(np.float32)) if biased else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None, None
        grad_x = matmul(array(weight).reshape(outputs, -1), rows, transpose_a=True)
        shape = inputs, x.shape[0], *x.shape[2:]
        if (kernel, stride, border) == (1, 1, 0):
            grad_x = grad_x.reshape(shape)
        else:
            windows = array(grad_x).reshape(inputs, kernel, kernel, x.shape[0], *gradient.shape[2:])
            grad_x = empty(shape)
            _fold(inputs, windows, stride, border, memory(grad_x))
        return swapped(grad_x), grad_weight, grad_bias, None, None


# Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray 2016): y = A' [(G w G') * (B' x B)] A for each tile of 2x2
# outputs, where * is, over all tiles and channels, 16 matrix products: 2.25 times fewer multiplications.


@threaded(**STRICT)
def _filters(start, stop, weight, out):
    """G w G': [D, C, 3, 3] -> [16, D, C]."""
    inputs = weight.shape[1]
    places, lines = np.empty((3, 3, inputs), np.float32), np.empty((4, 3, inputs), np.float32)
    for d in range(start, stop):
        for c in range(inputs):
            for i in range(3):
                for j in range(3):
                    places[i, j, c] = weight[d, c, i, j]
        for j in range(3):
            for c in range(inputs):
                first, second, third = places[0, j, c], places[1, j, c], places[2, j, c]
                lines[0, j, c] = first
                lines[1, j, c] = f32(0.5) * (first + third + second)
                lines[2, j, c] = f32(0.5) * (first + third - second)
                lines[3, j, c] = third
        for k in range(4):
            for c in range(inputs):
                first, second, third = lines[k, 0, c], lines[k, 1, c], lines[k, 2, c]
                out[4 * k, d, c] = first
                out[4 * k + 1, d, c] = f32(0.5) * (first + third + second)
                out[4 * k + 2, d, c] = f32(0.5) * (first + third - second)
                out[4 * k + 3, d, c] = third


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
    batch, rows, columns = out.shape[2:]
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        padded = padded_plane(x[c, n], np.int64(1), 2 * rows + 2, 2 * columns + 2, np.bool_(False))
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
def _tiles_gradient(start, stop, gradient, grad_x):
    """B g B', summed where tiles overlap: [16, C, N, rows, columns] -> [C, N, H, W]."""
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
        for r in range(grad_x.shape[2]):
            for q in range(grad_x.shape[3]):
                grad_x[c, n, r, q] = padded[r + 1, q + 1]


@threaded(**STRICT)
def untile(start, stop, products, slope, offset, relu, y):
    """A' m A, then a slope, an offset and ReLU: [16, D, N, rows, columns] -> [D, N, H, W]."""
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
                value = whole[r, q] * slope[c] + offset[c]
                y[c, n, r, q] = f32(0) if relu and value < f32(0) else value


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


def multiply_tiles(x: np.ndarray, weight: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """The filters [16, D, C] of a weight [D, C, 3, 3], and their products with the tiles of [C, N, H, W]:
    [16, D, N, rows, columns]."""
    outputs, inputs = weight.shape[:2]
    filters = empty((16, outputs, inputs))
    _filters(outputs, weight, memory(filters))
    tiles = _tiled(_tiles, x)
    products = matmul(memory(filters), tiles.reshape(16, inputs, -1))
    return filters, memory(products).reshape(16, outputs, *tiles.shape[2:])


class Winograd(Function):
    """3x3 convolution with stride 1 and padding 1, without bias: float32 [N, C, H, W], weight [D, C, 3, 3] ->
    [N, D, H, W]."""

    @staticmethod
    def forward(ctx, x, weight):
        filters, products = multiply_tiles(by_channel(x), array(weight))
        ctx.save_for_backward(x, weight, filters)
        y = empty((len(weight), x.shape[0], *x.shape[2:]))
        unchanged = np.ones(len(weight), np.float32), np.zeros(len(weight), np.float32)
        untile(y.shape[0] * y.shape[1], products, *unchanged, False, memory(y))
        return swapped(y)

    @staticmethod
    def backward(ctx, gradient):
        x, weight, filters = ctx.saved_tensors
        outputs, inputs = weight.shape[:2]
        spread = _tiled(_untiled_gradient, by_channel(gradient))
        shape = inputs, *spread.shape[2:]
        spread = spread.reshape(16, outputs, -1)
        x = by_channel(x)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = empty(x.shape)
            grad_tiles = array(matmul(array(filters), spread, transpose_a=True)).reshape(16, *shape)
            _tiles_gradient(inputs * x.shape[1], grad_tiles, memory(grad_x))
            grad_x = swapped(grad_x)
        tiles = _tiled(_tiles, x).reshape(16, inputs, -1)
        grad_weight = empty(weight.shape)
        _filters_gradient(outputs, array(matmul(spread, tiles, transpose_b=True)), memory(grad_weight))
        return grad_x, grad_weight


def _tiled(transform: Callable, x: np.ndarray) -> np.ndarray:
    channels, batch, height, width = x.shape
    out = empty((16, channels, batch, (height + 1) // 2, (width + 1) // 2))
    transform(batch * channels, x, memory(out))
    return memory(out)
