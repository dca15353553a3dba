"""Of MUN's auxiliary generator: depth-wise convolutions, and pyramids of pooled maps."""

import numpy as np

from ms_vireid.devices.compiling import njit
from ms_vireid.programs.kernels.base import (
    STRICT,
    SUMS,
    Function,
    array,
    empty,
    f32,
    matmul,
    memory,
    padded_plane,
    threaded,
)
from ms_vireid.programs.kernels.feature_maps import by_channel, swapped


@njit(**STRICT)
def _surrounded(plane, border, relu):
    """With zeros around it, and after its end: so that a window can be slid along its numbers."""
    height, width = plane.shape
    return padded_plane(plane, border, height + 2 * border + 1, width + 2 * border, relu)


@threaded(**STRICT)
def _depthwise(start, stop, x, weight, first, residual, y):
    """Depth-wise convolution of channels `first` to `first` + c of x [C, N, H, W] with weight [c, k, k]. With
    `residual`: of their ReLU, and the channels are added to the result."""
    height, width = x.shape[2:]
    kernel = weight.shape[1]
    for plane in range(start, stop):
        n, c = plane % x.shape[1], plane // x.shape[1]
        padded = _surrounded(x[first + c, n], kernel // 2, residual)
        line = padded.reshape(-1)
        row = padded.shape[1]
        sums = np.zeros(height * row, np.float32)
        for i in range(kernel):
            for j in range(kernel):
                factor = weight[c, i, j]
                window = line[i * row + j :]
                for q in range(sums.size):
                    sums[q] += factor * window[q]
        for r in range(height):
            line = sums[r * row :]
            for q in range(width):
                y[first + c, n, r, q] = line[q] + (x[first + c, n, r, q] if residual else f32(0))


@threaded(**SUMS)
def _depthwise_derivative(start, stop, x, gradient, of_x, weight, first, residual, of_weight):
    _, batch, height, width = x.shape
    kernel = weight.shape[1]
    for c in range(start, stop):
        of_weight[c] = f32(0)
        for n in range(batch):
            incoming = _surrounded(gradient[first + c, n], kernel // 2, np.bool_(False))
            padded = _surrounded(x[first + c, n], kernel // 2, residual)
            row = padded.shape[1]
            line = padded.reshape(-1)
            sliding = incoming.reshape(-1)
            centre = sliding[kernel // 2 * (row + 1) :]
            sums = np.zeros(height * row, np.float32)
            for i in range(kernel):
                for j in range(kernel):
                    factor = weight[c, kernel - 1 - i, kernel - 1 - j]
                    window = line[i * row + j :]
                    total = f32(0)
                    for q in range(sums.size - kernel + 1):
                        total += centre[q] * window[q]
                    of_weight[c, i, j] += total
                    window = sliding[i * row + j :]
                    for q in range(sums.size):
                        sums[q] += factor * window[q]
            for r in range(height):
                line = sums[r * row :]
                for q in range(width):
                    value = line[q]
                    if residual:
                        value = gradient[first + c, n, r, q] + (value if x[first + c, n, r, q] > f32(0) else f32(0))
                    of_x[first + c, n, r, q] = value


class Depthwise(Function):
    """One kernel for each channel, "same" padding: float32 [N, C, H, W], weights -> [N, C, H, W].

    weights: [c, 1, k, k] each, which may differ in k, for c channels after another. residual: of ReLU(x), plus x.
    """

    @staticmethod
    def forward(ctx, x, residual, *weights):
        ctx.save_for_backward(x, *weights)
        ctx.residual = residual
        x = by_channel(x)
        y = empty(x.shape)
        start = 0
        for weight in weights:
            _depthwise(x.shape[1] * len(weight), x, array(weight)[:, 0], start, residual, memory(y))
            start += len(weight)
        return swapped(y)

    @staticmethod
    def backward(ctx, gradient):
        x, *weights = ctx.saved_tensors
        x = by_channel(x)
        of_x = empty(x.shape)
        of_weights = [empty(weight.shape) for weight in weights]
        whole = x, by_channel(gradient), memory(of_x)
        start = 0
        for weight, of_weight in zip(weights, of_weights, strict=True):
            own = array(weight)[:, 0], start, ctx.residual, memory(of_weight)[:, 0]
            _depthwise_derivative(len(weight), *whole, *own)
            start += len(weight)
        return swapped(of_x), None, *of_weights


@threaded(**STRICT)
def _average_pool(start, stop, x, ratio, pooled):
    """[C, N, H, W] -> [C, N, H / ratio, W / ratio]."""
    batch = x.shape[1]
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        for r in range(pooled.shape[2]):
            for q in range(pooled.shape[3]):
                total = f32(0)
                for i in range(ratio):
                    for j in range(ratio):
                        total += x[c, n, r * ratio + i, q * ratio + j]
                pooled[c, n, r, q] = total / f32(ratio * ratio)


@threaded(**STRICT)
def _add_pooled(start, stop, of_pooled, ratio, of_x):
    """The derivative of `_average_pool`, added to of_x."""
    _, batch, height, width = of_x.shape
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        for r in range(height):
            for q in range(width):
                of_x[c, n, r, q] += of_pooled[c, n, r // ratio, q // ratio] / f32(ratio * ratio)


def _as_patches(maps: np.ndarray, number: int, shape: tuple[int, ...]) -> np.ndarray:
    """The number-th C channels of maps [..., N, H, W] as patches [C, ratio, ratio, N, h, w], in the same memory."""
    channels, ratio, _, batch, height, width = shape
    own = maps[channels * number : channels * (number + 1)]
    return own.reshape(channels, batch, height, ratio, width, ratio).transpose(0, 3, 5, 1, 2, 4)


@threaded()
def _copy_patches(start, stop, source, target):
    """Between patches [C, ratio, ratio, N, h, w] that lie together and those within maps, either way."""
    _, height, width, batch, rows, columns = source.shape
    for c in range(start, stop):
        for i in range(height):
            for j in range(width):
                for n in range(batch):
                    for r in range(rows):
                        for q in range(columns):
                            target[c, i, j, n, r, q] = source[c, i, j, n, r, q]


class Pyramids(Function):
    """Average pooling by each ratio, and back by a transposed convolution with kernel and stride of that ratio.

    maps: how many of the tensors are feature maps, float32 [N, C, H, W]; the others are weights [C, C, ratio, ratio].
    Gives [N, maps * ratios * C, H, W]: the first map by all ratios, then the second ...
    """

    @staticmethod
    def forward(ctx, maps, *tensors):
        features, weights = tensors[:maps], tensors[maps:]
        features = [by_channel(feature) for feature in features]
        ctx.shape = channels, batch, height, width = features[0].shape
        ctx.maps = maps
        out = empty((maps * len(weights) * channels, batch, height, width))
        pyramid = []
        for feature in features:
            for weight in weights:
                ratio = weight.shape[-1]
                pooled = empty((channels, batch, height // ratio, width // ratio))
                _average_pool(batch * channels, feature, ratio, memory(pooled))
                flat = (array(tensor).reshape(channels, -1) for tensor in (weight, pooled))
                patches = matmul(*flat, transpose_a=True)
                shape = channels, ratio, ratio, *pooled.shape[1:]
                within = _as_patches(memory(out), len(pyramid), shape)
                _copy_patches(channels, array(patches).reshape(shape), within)
                pyramid.append(pooled)
        ctx.save_for_backward(*weights, *pyramid)
        return swapped(out)

    @staticmethod
    def backward(ctx, gradient):
        channels, batch, height, width = ctx.shape
        ratios = len(ctx.saved_tensors) // (1 + ctx.maps)
        weights, pyramid = ctx.saved_tensors[:ratios], ctx.saved_tensors[ratios:]
        of_features = [empty(ctx.shape) for _ in range(ctx.maps)]
        incoming = by_channel(gradient)
        of_weights = [0.0] * ratios
        for number, pooled in enumerate(pyramid):
            of_feature, weight = of_features[number // ratios], weights[number % ratios]
            if number % ratios == 0:
                memory(of_feature).fill(0)
            ratio = weight.shape[-1]
            patches = empty((channels, ratio, ratio, batch, height // ratio, width // ratio))
            within = _as_patches(incoming, number, patches.shape)
            _copy_patches(channels, within, memory(patches))
            patches = memory(patches).reshape(channels * ratio * ratio, -1)
            of_pooled = matmul(array(weight).reshape(channels, -1), patches)
            of_pooled = array(of_pooled).reshape(pooled.shape)
            _add_pooled(batch * channels, of_pooled, ratio, memory(of_feature))
            of_weights[number % ratios] += matmul(array(pooled).reshape(channels, -1), patches, transpose_b=True)
        of_weights = [total.reshape(weight.shape) for total, weight in zip(of_weights, weights, strict=True)]
        return None, *map(swapped, of_features), *of_weights
