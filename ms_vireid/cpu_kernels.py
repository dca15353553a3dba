"""Layers' functions on the CPU, with their derivatives, in one pass over memory each.

MindSpore's CPU operators take a pass for each step of a function, and some are scalar or run in one thread. These are
compiled by Numba when they are first called, and the machine code is kept on disk. They serve PyNative in float32;
graphs, mixed precision and other devices have MindSpore's operators (see `Fused`).
"""

import ctypes
import math
from collections.abc import Callable
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mint, nn, ops
from mindspore._c_expression.amp import get_curr_amp_strategy
from mindspore.common import _Function
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter
from numba import njit, prange

_f = np.float32
_DTYPES = {ms.float32: np.float32, ms.int32: np.int32}
_STRICT = {"fastmath": {"contract"}, "error_model": "numpy"}
_SUMS = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy"}  # in any order, so that they can be vectorised
_PARALLEL = {"parallel": True, "cache": True}
_ROWS = 64  # that one partial sum is of, so that sums do not depend on the number of threads


class Fused(nn.Cell):
    """A cell that takes `by_kernel`, with the arguments of `construct`, where a kernel can be used.

    PyNative calls a cell; a graph compiles its `construct`. So a graph, whose operators run on any device and can be
    exported, never holds a kernel. Nor has it a part that is watched by a hook: a kernel would pass over it.
    """

    def __call__(self, x: Tensor | tuple[Tensor, ...], *others: Tensor | None) -> Tensor | bool:
        full = (x[0] if isinstance(x, tuple) else x).dtype == ms.float32 and get_curr_amp_strategy() is None
        on_cpu = ms.get_context("device_target") == "CPU"
        if full and on_cpu and not any(_watched(cell) for _, cell in self.cells_and_names()):
            return self.by_kernel(x, *others)
        return super().__call__(x, *others)

    def by_kernel(self, x: Tensor | tuple[Tensor, ...], *others: Tensor | None) -> Tensor | bool:
        raise NotImplementedError


def _watched(cell: nn.Cell) -> bool:
    """Whether MindSpore or a hook has to see this cell called: hooks, or the outermost cell of a derivative."""
    hooks = cell._forward_pre_hook, cell._forward_hook, cell._backward_pre_hook, cell._backward_hook
    return cell.requires_grad or any(hooks)


def _empty(shape: tuple[int, ...]) -> Tensor:
    """A tensor from MindSpore's pool of memory: the system's takes as long to map as a kernel to fill."""
    return mint.empty(shape, dtype=ms.float32)


def _array(x: Tensor) -> np.ndarray:
    """The tensor's own memory, to be read or written while the tensor lives; `asnumpy` copies what `reshape` gave."""
    if not x.is_contiguous():
        return x.asnumpy()
    memory = (ctypes.c_char * (x.size * x.itemsize)).from_address(x.data_ptr())
    return np.frombuffer(memory, _DTYPES[x.dtype]).reshape(x.shape)


def _flat(x: Tensor) -> np.ndarray:
    return _array(x).reshape(-1)


def _rows(x: Tensor) -> np.ndarray:
    return _array(x).reshape(-1, x.shape[-1])


@cache
def _matmul(transpose_a: bool = False, transpose_b: bool = False) -> ops.MatMul:
    return ops.MatMul(transpose_a, transpose_b)


@cache
def _batch_matmul(transpose_a: bool = False, transpose_b: bool = False) -> ops.BatchMatMul:
    return ops.BatchMatMul(transpose_a, transpose_b)


@cache
def _convolution(kind: Callable, channels: int, kernel: int, stride: int) -> ops.Primitive:
    """ops.Conv2D or one of its derivatives, with "same" padding."""
    pad = kernel // 2
    how = {} if kind is ops.Conv2D else {"pad_list": (pad,) * 4}
    return kind(channels, kernel, pad_mode="pad", pad=pad, stride=stride, **how)


@njit(**_STRICT)
def _exp(x):
    """e^x to float32's rounding, as 2^n e^r with |r| <= ln(2) / 2, for x <= 88; 0 for x < -87."""
    nothing = x < _f(-87.0)
    x = _f(-87.0) if nothing else x
    n = np.floor(x * _f(1 / math.log(2)) + _f(0.5))
    r = (x - n * _f(0.693359375)) - n * _f(math.log(2) - 0.693359375)
    y = _f(1 / 720) * r + _f(1 / 120)
    y = (((y * r + _f(1 / 24)) * r + _f(1 / 6)) * r + _f(0.5)) * r * r + r + _f(1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return _f(0) if nothing else y * power


@njit(**_STRICT)
def _distribution(x, bell):
    """The normal distribution function of x; bell is e^(-x^2 / 2).

    For z >= 0, erfc(z) e^(z^2) is within 3e-9 e^(z^2) of a polynomial in 1 / (1 + 0.45 z), fitted by least squares.
    """
    t = _f(1) / (_f(1) + _f(0.45 / math.sqrt(2)) * abs(x))
    p = (_f(0.0972382301) * t - _f(0.519939974)) * t + _f(0.91798324)
    p = ((p * t - _f(0.454708295)) * t + _f(0.521089112)) * t + _f(0.173035127)
    tail = _f(0.5) * bell * ((p * t + _f(0.266061403)) * t - _f(0.000758840233))
    return _f(1) - tail if x > _f(0) else tail


@njit(**_STRICT, **_PARALLEL)
def _gelu(x, y):
    for i in prange(x.size):
        y[i] = x[i] * _distribution(x[i], _exp(_f(-0.5) * x[i] * x[i]))


@njit(**_STRICT, **_PARALLEL)
def _gelu_derivative(x, gradient, y):
    for i in prange(x.size):
        bell = _exp(_f(-0.5) * x[i] * x[i])
        y[i] = gradient[i] * (_distribution(x[i], bell) + x[i] * bell * _f(1 / math.sqrt(2 * math.pi)))


class GELU(_Function):
    """x times the normal distribution function: float32 [...] -> [...]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        y = _empty(x.shape)
        _gelu(_flat(x), _flat(y))
        return y

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        y = _empty(x.shape)
        _gelu_derivative(_flat(x), _flat(gradient), _flat(y))
        return y


@njit(**_SUMS)
def _moments(row, eps):
    """Mean and 1 / sqrt(variance + eps)."""
    mean = _f(0)
    for i in range(row.size):
        mean += row[i]
    mean /= _f(row.size)
    variance = _f(0)
    for i in range(row.size):
        variance += (row[i] - mean) * (row[i] - mean)
    return mean, _f(1) / np.sqrt(variance / _f(row.size) + eps)


@njit(**_SUMS, **_PARALLEL)
def _layer_norm(x, gamma, beta, eps, y):
    for r in prange(x.shape[0]):
        mean, scale = _moments(x[r], eps)
        for i in range(x.shape[1]):
            y[r, i] = (x[r, i] - mean) * scale * gamma[i] + beta[i]


@njit(**_SUMS, **_PARALLEL)
def _layer_norm_derivative(x, gamma, eps, gradient, of_x, of_gamma, of_beta):
    rows, width = x.shape
    for block in prange(of_gamma.shape[0]):
        of_gamma[block] = _f(0)
        of_beta[block] = _f(0)
        for r in range(block * _ROWS, min(rows, (block + 1) * _ROWS)):
            mean, scale = _moments(x[r], eps)
            along_one = _f(0)
            along_x = _f(0)
            for i in range(width):
                normal = (x[r, i] - mean) * scale
                inner = gradient[r, i] * gamma[i]
                along_one += inner
                along_x += inner * normal
                of_gamma[block, i] += gradient[r, i] * normal
                of_beta[block, i] += gradient[r, i]
            along_one /= _f(width)
            along_x /= _f(width)
            for i in range(width):
                normal = (x[r, i] - mean) * scale
                of_x[r, i] = scale * (gradient[r, i] * gamma[i] - along_one - normal * along_x)


class LayerNorm(_Function):
    """Over the last axis: float32 [..., C], gamma [C], beta [C], eps -> [..., C]."""

    @staticmethod
    def forward(ctx, x, gamma, beta, eps):
        ctx.save_for_backward(x, gamma)
        ctx.eps = _f(eps)
        y = _empty(x.shape)
        _layer_norm(_rows(x), _array(gamma), _array(beta), ctx.eps, _rows(y))
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, gamma = ctx.saved_tensors
        of_x = _empty(x.shape)
        rows = _rows(x)
        sums = np.empty((2, -(-len(rows) // _ROWS), x.shape[-1]), np.float32)
        _layer_norm_derivative(rows, _array(gamma), ctx.eps, _rows(gradient), _rows(of_x), *sums)
        of_gamma, of_beta = sums.sum(axis=1)
        return of_x, Tensor(of_gamma), Tensor(of_beta), None


@njit(**_SUMS, **_PARALLEL)
def _column_sums(x, sums):
    for block in prange(sums.shape[0]):
        sums[block] = _f(0)
        for r in range(block * _ROWS, min(x.shape[0], (block + 1) * _ROWS)):
            for i in range(x.shape[1]):
                sums[block, i] += x[r, i]


@njit(**_STRICT, **_PARALLEL)
def _add_to_rows(x, bias):
    for r in prange(x.shape[0]):
        for i in range(x.shape[1]):
            x[r, i] += bias[i]


class Dense(_Function):
    """x w^T + b: float32 [..., C], weight [D, C], bias [D] -> [..., D]."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        y = _matmul(transpose_b=True)(x.reshape(-1, x.shape[-1]), weight)
        _add_to_rows(_array(y), _array(bias))
        return y.reshape(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        sums = np.empty((-(-len(gradient) // _ROWS), gradient.shape[1]), np.float32)
        _column_sums(_array(gradient), sums)
        of_x = _matmul()(gradient, weight).reshape(x.shape)
        of_weight = _matmul(transpose_a=True)(gradient, x.reshape(-1, x.shape[-1]))
        return of_x, of_weight, Tensor(sums.sum(axis=0))


@njit(**_STRICT, **_PARALLEL)
def _split_heads(x, parts):
    _, batch, heads, tokens, width = parts.shape
    for pair in prange(batch * heads):
        n, h = pair // heads, pair % heads
        for part in range(parts.shape[0]):
            for t in range(tokens):
                for i in range(width):
                    parts[part, n, h, t, i] = x[n, t, part, h, i]


@njit(**_STRICT, **_PARALLEL)
def _merge_heads(parts, x):
    _, batch, heads, tokens, width = parts.shape
    for row in prange(batch * tokens):
        n, t = row // tokens, row % tokens
        for part in range(parts.shape[0]):
            for h in range(heads):
                for i in range(width):
                    x[n, t, part, h, i] = parts[part, n, h, t, i]


@njit(fastmath=True)
def _largest(row):
    largest = row[0]
    for i in range(row.size):
        largest = max(largest, row[i])
    return largest


@njit(**_SUMS, **_PARALLEL)
def _softmax(x, scale):
    """In place, of scale * x."""
    for r in prange(x.shape[0]):
        largest = _largest(x[r])
        total = _f(0)
        for i in range(x.shape[1]):
            x[r, i] = _exp((x[r, i] - largest) * scale)
            total += x[r, i]
        total = _f(1) / total
        for i in range(x.shape[1]):
            x[r, i] *= total


@njit(**_SUMS, **_PARALLEL)
def _softmax_derivative(y, scale, gradient):
    """In place of the gradient: scale y (g - sum(g y))."""
    for r in prange(y.shape[0]):
        total = _f(0)
        for i in range(y.shape[1]):
            total += y[r, i] * gradient[r, i]
        for i in range(y.shape[1]):
            gradient[r, i] = scale * y[r, i] * (gradient[r, i] - total)


class Attention(_Function):
    """softmax(q k^T / sqrt(head_dim)) v of each head: float32 [N, T, 3 * D], queries, keys, values -> [N, T, D]."""

    @staticmethod
    def forward(ctx, qkv, num_heads):
        batch, tokens, width = qkv.shape
        head_dim = width // (3 * num_heads)
        ctx.scale = _f(head_dim**-0.5)
        query, key, value = parts = [_empty((batch, num_heads, tokens, head_dim)) for _ in range(3)]
        for i, part in enumerate(parts):
            apart = _array(qkv).reshape(batch, tokens, 3, num_heads, head_dim)[:, :, i : i + 1]
            _split_heads(apart, _array(part)[None])
        weights = _batch_matmul(transpose_b=True)(query, key)  # [N, heads, T, T]
        _softmax(_rows(weights), ctx.scale)
        ctx.save_for_backward(*parts, weights)
        together = _batch_matmul()(weights, value)  # [N, heads, T, head_dim]
        out = _empty((batch, tokens, width // 3))
        _merge_heads(_array(together)[None], _array(out).reshape(batch, tokens, 1, num_heads, head_dim))
        return out

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, weights = ctx.saved_tensors
        batch, num_heads, tokens, head_dim = query.shape
        apart = _empty(query.shape)
        _split_heads(_array(gradient).reshape(batch, tokens, 1, num_heads, head_dim), _array(apart)[None])
        of_scores = _batch_matmul(transpose_b=True)(apart, value)
        of_value = _batch_matmul(transpose_a=True)(weights, apart)
        _softmax_derivative(_rows(weights), ctx.scale, _rows(of_scores))
        of_query = _batch_matmul()(of_scores, key)
        of_key = _batch_matmul(transpose_a=True)(of_scores, query)
        out = _empty((batch, tokens, 3 * num_heads * head_dim))
        together = _array(out).reshape(batch, tokens, 3, num_heads, head_dim)
        for i, part in enumerate((of_query, of_key, of_value)):
            _merge_heads(_array(part)[None], together[:, :, i : i + 1])
        return out, None


@njit(**_STRICT, **_PARALLEL)
def _dropout(x, noise, starts, stops, scale, y):
    for r in prange(x.shape[0]):
        for part in range(starts.size):
            start = starts[part]
            stop = stops[part]
            for i in range(noise.shape[1]):
                dropped = (noise[r, i] >= start) & (noise[r, i] < stop)
                y[r, part, i] = _f(0) if dropped else x[r, part, i] * scale


def _dropped(x: Tensor, noise: Tensor, starts: np.ndarray, stops: np.ndarray, scale: float) -> Tensor:
    y = _empty(x.shape)
    rows = _rows(noise)
    shape = len(rows), len(starts), rows.shape[1]
    _dropout(_array(x).reshape(shape), rows, starts, stops, _f(scale), _array(y).reshape(shape))
    return y


class Dropout(_Function):
    """x float32 [..., parts * C] times scale, with zeros where noise, int32 [..., C], lies in the part's window: int32
    [parts] each of starts and stops, which do not belong to it."""

    @staticmethod
    def forward(ctx, x, noise, starts, stops, scale):
        ctx.save_for_backward(noise)
        ctx.window = starts, stops, scale
        return _dropped(x, noise, *ctx.window)

    @staticmethod
    def backward(ctx, gradient):
        (noise,) = ctx.saved_tensors
        return _dropped(gradient, noise, *ctx.window), None, None, None, None


@njit(**_STRICT, **_PARALLEL)
def _scale_rows(x, factors, y):
    for r in prange(x.shape[0]):
        for i in range(x.shape[1]):
            y[r, i] = x[r, i] * factors[r]


def _scaled(x: Tensor, factors: np.ndarray) -> Tensor:
    y = _empty(x.shape)
    _scale_rows(_array(x).reshape(len(factors), -1), factors, _array(y).reshape(len(factors), -1))
    return y


class ScaleSamples(_Function):
    """x float32 [N, ...] times factors, float32 [N]."""

    @staticmethod
    def forward(ctx, x, factors):
        ctx.factors = factors
        return _scaled(x, factors)

    @staticmethod
    def backward(ctx, gradient):
        return _scaled(gradient, ctx.factors), None


@njit(**_SUMS, **_PARALLEL)
def _statistics(x, mean, variance):
    """Of each channel of x [N, C, L]: mean and biased variance."""
    count = x.shape[0] * x.shape[2]
    for c in prange(x.shape[1]):
        total = 0.0
        for n in range(x.shape[0]):
            part = _f(0)
            for i in range(x.shape[2]):
                part += x[n, c, i]
            total += part
        mean[c] = total / count
        total = 0.0
        for n in range(x.shape[0]):
            part = _f(0)
            for i in range(x.shape[2]):
                part += (x[n, c, i] - mean[c]) * (x[n, c, i] - mean[c])
            total += part
        variance[c] = total / count


@njit(**_STRICT, **_PARALLEL)
def _normalise(x, mean, slope, beta, shortcut, shortened, relu, y):
    for c in prange(x.shape[1]):
        for n in range(x.shape[0]):
            for i in range(x.shape[2]):
                value = (x[n, c, i] - mean[c]) * slope[c] + beta[c]
                if shortened:
                    value += shortcut[n, c, i]
                y[n, c, i] = _f(0) if relu and value < _f(0) else value


@njit(**_SUMS, **_PARALLEL)
def _batch_norm_derivative(x, y, gradient, of_x, of_y, gamma, mean, scale, relu, shortened, trained, of_gamma, of_beta):
    count = x.shape[0] * x.shape[2]
    for c in prange(x.shape[1]):
        along_one = 0.0
        along_x = 0.0
        for n in range(x.shape[0]):
            part_one = _f(0)
            part_x = _f(0)
            for i in range(x.shape[2]):
                g = gradient[n, c, i] if not relu or y[n, c, i] > _f(0) else _f(0)
                part_one += g
                part_x += g * (x[n, c, i] - mean[c])
            along_one += part_one
            along_x += part_x * scale[c]
        of_beta[c] = along_one
        of_gamma[c] = along_x
        slope = gamma[c] * scale[c]
        one = along_one / count if trained else 0.0
        tilt = along_x / count * scale[c] if trained else 0.0
        for n in range(x.shape[0]):
            for i in range(x.shape[2]):
                g = gradient[n, c, i] if not relu or y[n, c, i] > _f(0) else _f(0)
                if shortened:
                    of_y[n, c, i] = g
                of_x[n, c, i] = slope * (g - one - tilt * (x[n, c, i] - mean[c]))


class BatchNorm(_Function):
    """Over N, H and W, then the sum with a shortcut and a ReLU, where there are: float32 [N, C, H, W] -> [N, C, H, W].

    gamma, beta: [C]. shortcut: as x, or None. moving: the running mean and variance [C], which training changes;
    momentum is the weight of the new ones.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, shortcut, moving, eps, momentum, training, relu):
        batch, channels = x.shape[:2]
        shape = batch, channels, -1
        mean, variance = (_array(average) for average in moving)
        if training:
            averages = mean, variance
            mean, variance = np.empty((2, channels), np.float32)
            _statistics(_array(x).reshape(shape), mean, variance)
            count = x.size // channels
            for average, new in zip(averages, (mean, variance * _f(count / (count - 1))), strict=True):
                average += _f(momentum) * (new - average)
        scale = 1 / np.sqrt(variance + _f(eps))
        y = _empty(x.shape)
        values, out = _array(x).reshape(shape), _array(y).reshape(shape)
        added = values if shortcut is None else _array(shortcut).reshape(shape)
        _normalise(values, mean, scale * _array(gamma), _array(beta), added, shortcut is not None, relu, out)
        ctx.save_for_backward(*((x, gamma, y) if relu else (x, gamma)))
        ctx.how = mean.copy(), scale, training, shortcut is not None
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, gamma, *outputs = ctx.saved_tensors
        mean, scale, training, shortened = ctx.how
        shape = *x.shape[:2], -1
        of_x = _empty(x.shape)
        of_shortcut = _empty(x.shape) if shortened and outputs else gradient
        of_gamma, of_beta = np.empty((2, len(mean)), np.float32)
        y = outputs[0] if outputs else x
        arrays = [_array(tensor).reshape(shape) for tensor in (x, y, gradient, of_x, of_shortcut)]
        _batch_norm_derivative(
            *arrays, _array(gamma), mean, scale, bool(outputs), of_shortcut is not gradient, training, of_gamma, of_beta
        )
        return of_x, Tensor(of_gamma), Tensor(of_beta), of_shortcut if shortened else None, *[None] * 5


@njit(**_STRICT, **_PARALLEL)
def _turned(weight, out):
    """[D, C, k * k] -> [C, D, k * k] with each kernel turned by half a circle; in tiles that the cache holds."""
    outer, inner, size = weight.shape
    for tile in prange((inner + 15) // 16):
        for start in range(0, outer, 16):
            for c in range(tile * 16, min(inner, tile * 16 + 16)):
                for d in range(start, min(outer, start + 16)):
                    for i in range(size):
                        out[c, d, i] = weight[d, c, size - 1 - i]


class Convolution(_Function):
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
            turned = _empty((inputs, outputs, kernel, kernel))
            _turned(_array(weight).reshape(outputs, inputs, -1), _array(turned).reshape(inputs, outputs, -1))
            of_x = _convolution(ops.Conv2D, inputs, kernel, 1)(gradient, turned)
        elif ctx.needs_input_grad[0]:
            of_x = _convolution(ops.Conv2DTranspose, outputs, kernel, ctx.stride)(gradient, weight, x.shape)
        of_weight = _convolution(Conv2DBackpropFilter, outputs, kernel, ctx.stride)(gradient, x, weight.shape)
        return of_x, of_weight, None


@njit(**_STRICT)
def _padded(plane, border, height, width, relu):
    """A plane [H, W], or its ReLU, in zeros [height, width], `border` from above and from the left."""
    out = np.zeros((height, width), np.float32)
    for r in range(plane.shape[0]):
        line = out[r + border, border:]
        for c in range(plane.shape[1]):
            line[c] = _f(0) if relu and plane[r, c] < _f(0) else plane[r, c]
    return out


# Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray 2016): y = A' [(G w G') * (B' x B)] A for each tile of 2x2
# outputs, where * is, over all tiles and channels, 16 matrix products: 2.25 times fewer multiplications.


@njit(**_STRICT, **_PARALLEL)
def _filters(weight, out):
    """G w G': [D, C, 3, 3] -> [16, D, C]."""
    for d in prange(weight.shape[0]):
        lines = np.empty((4, 3), np.float32)
        for c in range(weight.shape[1]):
            for j in range(3):
                first, second, third = weight[d, c, 0, j], weight[d, c, 1, j], weight[d, c, 2, j]
                lines[0, j] = first
                lines[1, j] = _f(0.5) * (first + third + second)
                lines[2, j] = _f(0.5) * (first + third - second)
                lines[3, j] = third
            for k in range(4):
                first, second, third = lines[k, 0], lines[k, 1], lines[k, 2]
                out[4 * k, d, c] = first
                out[4 * k + 1, d, c] = _f(0.5) * (first + third + second)
                out[4 * k + 2, d, c] = _f(0.5) * (first + third - second)
                out[4 * k + 3, d, c] = third


@njit(**_STRICT, **_PARALLEL)
def _filters_derivative(gradient, of_weight):
    """G' g G: [16, D, C] -> [D, C, 3, 3]."""
    for d in prange(of_weight.shape[0]):
        lines = np.empty((3, 4), np.float32)
        for c in range(of_weight.shape[1]):
            for k in range(4):
                both = _f(0.5) * (gradient[4 + k, d, c] + gradient[8 + k, d, c])
                lines[0, k] = gradient[k, d, c] + both
                lines[1, k] = _f(0.5) * (gradient[4 + k, d, c] - gradient[8 + k, d, c])
                lines[2, k] = both + gradient[12 + k, d, c]
            for i in range(3):
                both = _f(0.5) * (lines[i, 1] + lines[i, 2])
                of_weight[d, c, i, 0] = lines[i, 0] + both
                of_weight[d, c, i, 1] = _f(0.5) * (lines[i, 1] - lines[i, 2])
                of_weight[d, c, i, 2] = both + lines[i, 3]


@njit(**_STRICT, **_PARALLEL)
def _tiles(x, out):
    """B' x B: [N, C, H, W] -> [16, C, N, rows, columns] of tiles."""
    _, channels, batch, rows, columns = out.shape
    for plane in prange(batch * channels):
        n, c = plane % batch, plane // batch
        padded = _padded(x[n, c], 1, 2 * rows + 2, 2 * columns + 2, False)
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


@njit(**_STRICT, **_PARALLEL)
def _tiles_derivative(gradient, of_x):
    """B g B', where tiles overlap summed: [16, C, N, rows, columns] -> [N, C, H, W]."""
    _, channels, batch, rows, columns = gradient.shape
    for plane in prange(batch * channels):
        n, c = plane % batch, plane // batch
        padded = np.zeros((2 * rows + 2, 2 * columns + 2), np.float32)
        lines = np.empty((4, padded.shape[1]), np.float32)
        for i in range(rows):
            lines[:] = _f(0)
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


@njit(**_STRICT, **_PARALLEL)
def _untiled(products, y):
    """A' m A: [16, D, N, rows, columns] -> [N, D, H, W]."""
    _, channels, batch, rows, columns = products.shape
    for plane in prange(batch * channels):
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


@njit(**_STRICT, **_PARALLEL)
def _untiled_derivative(gradient, out):
    """A g A': [N, D, H, W] -> [16, D, N, rows, columns]."""
    _, channels, batch, rows, columns = out.shape
    for plane in prange(batch * channels):
        n, c = plane % batch, plane // batch
        padded = _padded(gradient[n, c], 0, 2 * rows, 2 * columns, False)
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


class Winograd(_Function):
    """3x3 convolution with stride 1, "same" padding, without bias: float32 [N, C, H, W], weight [D, C, 3, 3] ->
    [N, D, H, W]."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        filters = _empty((16, *weight.shape[:2]))
        _filters(_array(weight), _array(filters))
        tiles = _tiled(_tiles, x)
        products = _batch_matmul()(filters, tiles.reshape(16, x.shape[1], -1))
        y = _empty((x.shape[0], weight.shape[0], *x.shape[2:]))
        _untiled(_array(products).reshape(16, -1, *tiles.shape[2:]), _array(y))
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
            filters = _empty((16, inputs, outputs))
            _filters(_array(weight).swapaxes(0, 1), _array(filters))
            of_x = _empty(x.shape)
            _tiles_derivative(_array(_batch_matmul()(filters, spread)).reshape(16, *shape), _array(of_x))
        tiles = _tiled(_tiles, x).reshape(16, inputs, -1)
        of_weight = _empty(weight.shape)
        _filters_derivative(_array(_batch_matmul(transpose_b=True)(spread, tiles)), _array(of_weight))
        return of_x, of_weight


def _tiled(transform: Callable, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    out = _empty((16, channels, batch, (height + 1) // 2, (width + 1) // 2))
    transform(_array(x), _array(out))
    return out


@njit(**_STRICT, **_PARALLEL)
def _max_pool(x, y, places):
    planes, height, width = x.shape
    for p in prange(planes):
        for r in range(y.shape[1]):
            for c in range(y.shape[2]):
                row, column = max(2 * r - 1, 0), max(2 * c - 1, 0)
                largest = x[p, row, column]
                place = row * width + column
                for i in range(row, min(2 * r + 2, height)):
                    for j in range(column, min(2 * c + 2, width)):
                        if x[p, i, j] > largest or x[p, i, j] != x[p, i, j]:
                            largest = x[p, i, j]
                            place = i * width + j
                y[p, r, c] = largest
                places[p, r, c] = place


@njit(**_STRICT, **_PARALLEL)
def _max_pool_derivative(gradient, places, of_x):
    for p in prange(of_x.shape[0]):
        of_x[p] = _f(0)
        for i in range(gradient.shape[1]):
            of_x[p, places[p, i]] += gradient[p, i]


class MaxPool(_Function):
    """3x3 windows with stride 2 and padding 1: float32 [N, C, H, W] -> [N, C, H / 2, W / 2], rounded up."""

    @staticmethod
    def forward(ctx, x):
        *planes, height, width = ctx.shape = x.shape
        y = _empty((*planes, (height + 1) // 2, (width + 1) // 2))
        out = _array(y).reshape(-1, *y.shape[2:])
        ctx.places = np.empty(out.shape, np.int32)
        _max_pool(_array(x).reshape(-1, height, width), out, ctx.places)
        return y

    @staticmethod
    def backward(ctx, gradient):
        of_x = _empty(ctx.shape)
        planes = len(ctx.places)
        _max_pool_derivative(
            _array(gradient).reshape(planes, -1), ctx.places.reshape(planes, -1), _array(of_x).reshape(planes, -1)
        )
        return of_x


@njit(**_STRICT)
def _surrounded(plane, border, relu):
    """With zeros around it, and after its end: so that a window can be slid along its numbers."""
    height, width = plane.shape
    return _padded(plane, border, height + 2 * border + 1, width + 2 * border, relu)


@njit(**_STRICT, **_PARALLEL)
def _depthwise(x, weight, start, residual, y):
    """Of the channels of x [N, C, H, W] from `start` on, as many as weight [c, k, k] has; with `residual`, of their
    ReLU, plus themselves."""
    batch, _, height, width = x.shape
    channels, kernel, _ = weight.shape
    for plane in prange(batch * channels):
        n, c = plane // channels, plane % channels
        padded = _surrounded(x[n, start + c], kernel // 2, residual)
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
                y[n, start + c, r, q] = line[q] + (x[n, start + c, r, q] if residual else _f(0))


@njit(**_SUMS, **_PARALLEL)
def _depthwise_derivative(x, gradient, of_x, weight, start, residual, of_weight):
    batch, _, height, width = x.shape
    channels, kernel, _ = weight.shape
    for c in prange(channels):
        of_weight[c] = _f(0)
        for n in range(batch):
            incoming = _surrounded(gradient[n, start + c], kernel // 2, False)
            padded = _surrounded(x[n, start + c], kernel // 2, residual)
            row = padded.shape[1]
            line = padded.reshape(-1)
            sliding = incoming.reshape(-1)
            centre = sliding[kernel // 2 * (row + 1) :]
            sums = np.zeros(height * row, np.float32)
            for i in range(kernel):
                for j in range(kernel):
                    factor = weight[c, kernel - 1 - i, kernel - 1 - j]
                    window = line[i * row + j :]
                    total = _f(0)
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
                        value = gradient[n, start + c, r, q] + (value if x[n, start + c, r, q] > _f(0) else _f(0))
                    of_x[n, start + c, r, q] = value


class Depthwise(_Function):
    """One kernel for each channel, "same" padding: float32 [N, C, H, W], weights -> [N, C, H, W].

    weights: [c, 1, k, k] each, which may differ in k, for c channels after another. residual: of ReLU(x), plus x.
    """

    @staticmethod
    def forward(ctx, x, residual, *weights):
        ctx.save_for_backward(x, *weights)
        ctx.residual = residual
        y = _empty(x.shape)
        start = 0
        for weight in weights:
            _depthwise(_array(x), _array(weight)[:, 0], start, residual, _array(y))
            start += len(weight)
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, *weights = ctx.saved_tensors
        of_x = _empty(x.shape)
        of_weights = [_empty(weight.shape) for weight in weights]
        whole = _array(x), _array(gradient), _array(of_x)
        start = 0
        for weight, of_weight in zip(weights, of_weights, strict=True):
            _depthwise_derivative(*whole, _array(weight)[:, 0], start, ctx.residual, _array(of_weight)[:, 0])
            start += len(weight)
        return of_x, None, *of_weights


@njit(**_STRICT, **_PARALLEL)
def _average_pool(x, ratio, pooled):
    """x [N, C, H, W] -> [C, N, H / ratio, W / ratio]."""
    batch, channels, _, _ = x.shape
    for plane in prange(batch * channels):
        n, c = plane % batch, plane // batch
        for r in range(pooled.shape[2]):
            for q in range(pooled.shape[3]):
                total = _f(0)
                for i in range(ratio):
                    for j in range(ratio):
                        total += x[n, c, r * ratio + i, q * ratio + j]
                pooled[c, n, r, q] = total / _f(ratio * ratio)


@njit(**_STRICT, **_PARALLEL)
def _add_pooled(of_pooled, ratio, of_x):
    """The derivative of `_average_pool`, added to of_x."""
    batch, channels, height, width = of_x.shape
    for plane in prange(batch * channels):
        n, c = plane % batch, plane // batch
        for r in range(height):
            for q in range(width):
                of_x[n, c, r, q] += of_pooled[c, n, r // ratio, q // ratio] / _f(ratio * ratio)


@njit(**_STRICT, **_PARALLEL)
def _patches_to_maps(patches, start, maps):
    """patches [C, ratio, ratio, N, h, w] -> maps[:, start : start + C] [N, C, h * ratio, w * ratio]."""
    channels, ratio, _, batch, height, width = patches.shape
    for plane in prange(batch * channels):
        n, c = plane % batch, plane // batch
        for r in range(height):
            for i in range(ratio):
                for j in range(ratio):
                    for q in range(width):
                        maps[n, start + c, r * ratio + i, q * ratio + j] = patches[c, i, j, n, r, q]


@njit(**_STRICT, **_PARALLEL)
def _maps_to_patches(maps, start, patches):
    channels, ratio, _, batch, height, width = patches.shape
    for plane in prange(batch * channels):
        n, c = plane % batch, plane // batch
        for r in range(height):
            for i in range(ratio):
                for j in range(ratio):
                    for q in range(width):
                        patches[c, i, j, n, r, q] = maps[n, start + c, r * ratio + i, q * ratio + j]


class Pyramids(_Function):
    """Average pooling by each ratio, and back by a transposed convolution with kernel and stride of that ratio.

    maps: how many of the tensors are feature maps, float32 [N, C, H, W]; the others are weights [C, C, ratio, ratio].
    Gives [N, maps * ratios * C, H, W]: the first map by all ratios, then the second ...
    """

    @staticmethod
    def forward(ctx, maps, *tensors):
        features, weights = tensors[:maps], tensors[maps:]
        ctx.shape = batch, channels, height, width = features[0].shape
        ctx.maps = maps
        out = _empty((batch, maps * len(weights) * channels, height, width))
        pyramid = []
        for feature in features:
            for weight in weights:
                ratio = weight.shape[-1]
                pooled = _empty((channels, batch, height // ratio, width // ratio))
                _average_pool(_array(feature), ratio, _array(pooled))
                patches = _matmul(transpose_a=True)(weight.reshape(channels, -1), pooled.reshape(channels, -1))
                shape = channels, ratio, ratio, *pooled.shape[1:]
                _patches_to_maps(_array(patches).reshape(shape), channels * len(pyramid), _array(out))
                pyramid.append(pooled)
        ctx.save_for_backward(*weights, *pyramid)
        return out

    @staticmethod
    def backward(ctx, gradient):
        batch, channels, height, width = ctx.shape
        ratios = len(ctx.saved_tensors) // (1 + ctx.maps)
        weights, pyramid = ctx.saved_tensors[:ratios], ctx.saved_tensors[ratios:]
        of_features = [_empty(ctx.shape) for _ in range(ctx.maps)]
        of_weights = [0.0] * ratios
        for number, pooled in enumerate(pyramid):
            of_feature, weight = of_features[number // ratios], weights[number % ratios]
            if number % ratios == 0:
                _array(of_feature).fill(0)
            ratio = weight.shape[-1]
            patches = _empty((channels, ratio, ratio, batch, height // ratio, width // ratio))
            _maps_to_patches(_array(gradient), channels * number, _array(patches))
            patches = patches.reshape(channels * ratio * ratio, -1)
            of_pooled = _matmul()(weight.reshape(channels, -1), patches)
            _add_pooled(_array(of_pooled).reshape(pooled.shape), ratio, _array(of_feature))
            of_weights[number % ratios] += _matmul(transpose_b=True)(pooled.reshape(channels, -1), patches)
        of_weights = [total.reshape(weight.shape) for total, weight in zip(of_weights, weights, strict=True)]
        return None, *of_features, *of_weights


@njit(**_SUMS, **_PARALLEL)
def _mean_of_cubes(x, means):
    for r in prange(x.shape[0]):
        total = _f(0)
        for i in range(x.shape[1]):
            total += x[r, i] * x[r, i] * x[r, i]
        means[r] = total / _f(x.shape[1])


@njit(**_STRICT, **_PARALLEL)
def _mean_of_cubes_derivative(x, gradient, of_x):
    for r in prange(x.shape[0]):
        factor = gradient[r] * _f(3) / _f(x.shape[1])
        for i in range(x.shape[1]):
            of_x[r, i] = factor * x[r, i] * x[r, i]


class MeanOfCubes(_Function):
    """Over H and W: float32 [N, C, H, W] -> [N, C]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        means = _empty(x.shape[:2])
        _mean_of_cubes(_array(x).reshape(means.size, -1), _flat(means))
        return means

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        of_x = _empty(x.shape)
        planes = gradient.size, -1
        _mean_of_cubes_derivative(_array(x).reshape(planes), _flat(gradient), _array(of_x).reshape(planes))
        return of_x


@njit(**_STRICT, **_PARALLEL)
def _adamw(weight, exp_avg, exp_avg_sq, gradient, lr, eps, decay, beta1, beta2):
    new1 = _f(1) - beta1
    new2 = _f(1) - beta2
    for i in prange(weight.size):
        exp_avg[i] = exp_avg[i] * beta1 + gradient[i] * new1
        exp_avg_sq[i] = exp_avg_sq[i] * beta2 + gradient[i] * gradient[i] * new2
        weight[i] -= lr * (exp_avg[i] / (np.sqrt(exp_avg_sq[i]) + eps) + decay * weight[i])


def adamw(weight: Parameter, exp_avg: Parameter, exp_avg_sq: Parameter, gradient: Tensor, *scalars: float) -> None:
    """AdamW's update in place, without bias correction; scalars: lr, eps, decay, beta1, beta2."""
    _adamw(*map(_flat, (weight, exp_avg, exp_avg_sq, gradient)), *map(_f, scalars))


@njit(**_STRICT, **_PARALLEL)
def _sgd(weight, buffer, gradient, lr, decay, momentum, nesterov):
    for i in prange(weight.size):
        g = gradient[i] + decay * weight[i]
        buffer[i] = momentum * buffer[i] + g
        weight[i] -= lr * (g + momentum * buffer[i] if nesterov else buffer[i])


def sgd(weight: Parameter, buffer: Parameter, gradient: Tensor, nesterov: bool, *scalars: float) -> None:
    """SGD's update in place, with momentum; scalars: lr, decay, momentum."""
    _sgd(*map(_flat, (weight, buffer, gradient)), *map(_f, scalars), nesterov)
