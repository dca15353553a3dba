"""Kernels of MUN's auxiliary generator: depth-wise convolutions, and pyramids of pooled maps."""

import numpy as np

from ms_vireid.backends.numba.base import (
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
from ms_vireid.backends.numba.feature_maps import by_channel, swapped
from ms_vireid.files.kernel_cache import njit


@njit(**STRICT)
def _padded(plane, border, relu):
    """Pad with zeros on all sides and one more row, so that a window can slide along the flat memory."""
    height, width = plane.shape
    return padded_plane(plane, border, height + 2 * border + 1, width + 2 * border, relu)


@threaded(**STRICT)
def _depthwise(start, stop, x, weight, first, residual, y):
    """Convolve channels `first` to `first` + c of x [C, N, H, W], each with its own weight of [c, k, k]. With
    `residual`, convolve their ReLU and add the channels."""
    height, width = x.shape[2:]
    kernel = weight.shape[1]
    for plane in range(start, stop):
        n, c = plane % x.shape[1], plane // x.shape[1]
        padded = _padded(x[first + c, n], kernel // 2, residual)
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
def _depthwise_gradient(start, stop, x, gradient, grad_x, weight, first, residual, grad_weight):
    _, batch, height, width = x.shape
    kernel = weight.shape[1]
    for c in range(start, stop):
        grad_weight[c] = f32(0)
        for n in range(batch):
            incoming = _padded(gradient[first + c, n], kernel // 2, np.bool_(False))
            padded = _padded(x[first + c, n], kernel // 2, residual)
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
                    grad_weight[c, i, j] += total
                    window = sliding[i * row + j :]
                    for q in range(sums.size):
                        sums[q] += factor * window[q]
            for r in range(height):
                line = sums[r * row :]
                for q in range(width):
                    value = line[q]
                    if residual:
                        value = gradient[first + c, n, r, q] + (value if x[first + c, n, r, q] > f32(0) else f32(0))
                    grad_x[first + c, n, r, q] = value


class Depthwise(Function):
    """Depth-wise convolution with "same" padding: float32 [N, C, H, W], weights -> [N, C, H, W].

    weights: [c, 1, k, k] each, for consecutive groups of c channels; k may differ. residual: convolve ReLU(x), add x.
    """

    @staticmethod
    def forward(ctx, x, residual, *weights):
        if x.shape[1] != sum(map(len, weights)):
            raise ValueError(f"weights {[weight.shape for weight in weights]} for {x.shape[1]} channels")
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
        grad_x = empty(x.shape)
        grad_weights = [empty(weight.shape) for weight in weights]
        maps = x, by_channel(gradient), memory(grad_x)
        start = 0
        for weight, grad_weight in zip(weights, grad_weights, strict=True):
            group = array(weight)[:, 0], start, ctx.residual, memory(grad_weight)[:, 0]
            _depthwise_gradient(len(weight), *maps, *group)
            start += len(weight)
        return swapped(grad_x), None, *grad_weights


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
def _add_pooled(start, stop, grad_pooled, ratio, grad_x):
    """Add the gradient of `_average_pool` to grad_x."""
    _, batch, height, width = grad_x.shape
    for plane in range(start, stop):
        n, c = plane % batch, plane // batch
        for r in range(height):
            for q in range(width):
                grad_x[c, n, r, q] += grad_pooled[c, n, r // ratio, q // ratio] / f32(ratio * ratio)


def _as_patches(maps: np.ndarray, number: int, shape: tuple[int, ...]) -> np.ndarray:
    """View the number-th C channels of maps [..., N, H, W] as patches [C, ratio, ratio, N, h, w]."""
    channels, ratio, _, batch, height, width = shape
    group = maps[channels * number : channels * (number + 1)]
    return group.reshape(channels, batch, height, ratio, width, ratio).transpose(0, 3, 5, 1, 2, 4)


@threaded()
def _copy_patches(start, stop, source, target):
    """Copy patches [C, ratio, ratio, N, h, w]; one side is contiguous, the other a view of maps."""
    _, height, width, batch, rows, columns = source.shape
    for c in range(start, stop):
        for i in range(height):
            for j in range(width):
                for n in range(batch):
                    for r in range(rows):
                        for q in range(columns):
                            target[c, i, j, n, r, q] = source[c, i, j, n, r, q]


class Pyramids(Function):
    """Average pooling by each ratio, then a transposed convolution with that kernel and stride back to full size.

    maps: number of feature maps among the tensors, float32 [N, C, H, W]; the others are weights [C, C, ratio, ratio].
    Returns [N, maps * ratios * C, H, W]: the first map by all ratios, then the second, and so on.
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
                target = _as_patches(memory(out), len(pyramid), shape)
                _copy_patches(channels, array(patches).reshape(shape), target)
                pyramid.append(pooled)
        ctx.save_for_backward(*weights, *pyramid)
        return swapped(out)

    @staticmethod
    def backward(ctx, gradient):
        channels, batch, height, width = ctx.shape
        ratios = len(ctx.saved_tensors) // (1 + ctx.maps)
        weights, pyramid = ctx.saved_tensors[:ratios], ctx.saved_tensors[ratios:]
        grad_features = [empty(ctx.shape) for _ in range(ctx.maps)]
        incoming = by_channel(gradient)
        grad_weights = [0.0] * ratios
        for number, pooled in enumerate(pyramid):
            grad_feature, weight = grad_features[number // ratios], weights[number % ratios]
            if number % ratios == 0:
                memory(grad_feature).fill(0)
            ratio = weight.shape[-1]
            patches = empty((channels, ratio, ratio, batch, height // ratio, width // ratio))
            source = _as_patches(incoming, number, patches.shape)
            _copy_patches(channels, source, memory(patches))
            patches = memory(patches).reshape(channels * ratio * ratio, -1)
            grad_pooled = matmul(array(weight).reshape(channels, -1), patches)
            grad_pooled = array(grad_pooled).reshape(pooled.shape)
            _add_pooled(batch * channels, grad_pooled, ratio, memory(grad_feature))
            grad_weights[number % ratios] += matmul(array(pooled).reshape(channels, -1), patches, transpose_b=True)
        grad_weights = [total.reshape(weight.shape) for total, weight in zip(grad_weights, weights, strict=True)]
        return None, *map(swapped, grad_features), *grad_weights
