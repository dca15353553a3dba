"""Kernels of the ViT: GELU, LayerNorm, dense layers, attention, dropout and stochastic depth."""

import math

import numpy as np
from mindspore import Tensor

from ms_vireid.backends.numba.base import (
    ROWS,
    STRICT,
    SUMS,
    Function,
    array,
    empty,
    f32,
    matmul,
    memory,
    rows_of,
    threaded,
)
from ms_vireid.files.kernel_cache import njit


@njit(**STRICT)
def _exp(x):
    """e^x to float32's rounding, as 2^n e^r with |r| <= ln(2) / 2, for x <= 88; 0 for x < -87."""
    underflows = x < f32(-87.0)
    x = f32(-87.0) if underflows else x
    n = np.floor(x * f32(1 / math.log(2)) + f32(0.5))
    r = (x - n * f32(0.693359375)) - n * f32(math.log(2) - 0.693359375)
    y = f32(1 / 720) * r + f32(1 / 120)
    y = (((y * r + f32(1 / 24)) * r + f32(1 / 6)) * r + f32(0.5)) * r * r + r + f32(1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return f32(0) if underflows else y * power


@njit(**STRICT)
def _distribution(x, bell):
    """The normal distribution function of x; bell is e^(-x^2 / 2).

    For z >= 0, erfc(z) e^(z^2) is within 3e-9 e^(z^2) of a polynomial in 1 / (1 + 0.45 z), fitted by least squares.
    """
    t = f32(1) / (f32(1) + f32(0.45 / math.sqrt(2)) * abs(x))
    p = (f32(0.0972382301) * t - f32(0.519939974)) * t + f32(0.91798324)
    p = ((p * t - f32(0.454708295)) * t + f32(0.521089112)) * t + f32(0.173035127)
    tail = f32(0.5) * bell * ((p * t + f32(0.266061403)) * t - f32(0.000758840233))
    return f32(1) - tail if x > f32(0) else tail


@threaded(**STRICT)
def _gelu(start, stop, x, y):
    x, y = x[start:stop], y[start:stop]
    for i in range(x.size):
        y[i] = x[i] * _distribution(x[i], _exp(f32(-0.5) * x[i] * x[i]))


@threaded(**STRICT)
def _gelu_gradient(start, stop, x, gradient, y):
    x, gradient, y = x[start:stop], gradient[start:stop], y[start:stop]
    for i in range(x.size):
        bell = _exp(f32(-0.5) * x[i] * x[i])
        y[i] = gradient[i] * (_distribution(x[i], bell) + x[i] * bell * f32(1 / math.sqrt(2 * math.pi)))


class GELU(Function):
    """x times the normal distribution function: float32 [...] -> [...]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        y = empty(x.shape)
        _gelu(x.size, array(x).reshape(-1), memory(y).reshape(-1))
        return y

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        y = empty(x.shape)
        _gelu_gradient(x.size, array(x).reshape(-1), array(gradient).reshape(-1), memory(y).reshape(-1))
        return y


@njit(**SUMS)
def _moments(row, eps):
    """Mean and 1 / sqrt(variance + eps) of a row."""
    mean = f32(0)
    for i in range(row.size):
        mean += row[i]
    mean /= f32(row.size)
    variance = f32(0)
    for i in range(row.size):
        variance += (row[i] - mean) * (row[i] - mean)
    return mean, f32(1) / np.sqrt(variance / f32(row.size) + eps)


@threaded(**SUMS)
def _layer_norm(start, stop, x, gamma, beta, eps, y):
    for r in range(start, stop):
        mean, scale = _moments(x[r], eps)
        for i in range(x.shape[1]):
            y[r, i] = (x[r, i] - mean) * scale * gamma[i] + beta[i]


@threaded(**SUMS)
def _layer_norm_gradient(start, stop, x, gamma, eps, gradient, grad_x, grad_gamma, grad_beta):
    rows, width = x.shape
    for block in range(start, stop):
        grad_gamma[block] = 0.0
        grad_beta[block] = 0.0
        for r in range(block * ROWS, min(rows, (block + 1) * ROWS)):
            mean, scale = _moments(x[r], eps)
            along_one = f32(0)
            along_x = f32(0)
            for i in range(width):
                normal = (x[r, i] - mean) * scale
                inner = gradient[r, i] * gamma[i]
                along_one += inner
                along_x += inner * normal
                grad_gamma[block, i] += gradient[r, i] * normal
                grad_beta[block, i] += gradient[r, i]
            along_one /= f32(width)
            along_x /= f32(width)
            for i in range(width):
                normal = (x[r, i] - mean) * scale
                grad_x[r, i] = scale * (gradient[r, i] * gamma[i] - along_one - normal * along_x)


class LayerNorm(Function):
    """Over the last axis: float32 [..., C], gamma [C], beta [C], eps -> [..., C]."""

    @staticmethod
    def forward(ctx, x, gamma, beta, eps):
        ctx.save_for_backward(x, gamma)
        ctx.eps = f32(eps)
        y = empty(x.shape)
        rows = rows_of(x)
        _layer_norm(len(rows), rows, array(gamma), array(beta), ctx.eps, memory(y).reshape(rows.shape))
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, gamma = ctx.saved_tensors
        grad_x = empty(x.shape)
        rows = rows_of(x)
        sums = np.empty((2, -(-len(rows) // ROWS), x.shape[-1]))
        inputs = rows, array(gamma), ctx.eps, rows_of(gradient)
        _layer_norm_gradient(sums.shape[1], *inputs, memory(grad_x).reshape(rows.shape), *sums)
        grad_gamma, grad_beta = sums.sum(axis=1).astype(np.float32)
        return grad_x, Tensor(grad_gamma), Tensor(grad_beta), None


@threaded(**SUMS)
def _column_sums(start, stop, x, sums):
    for block in range(start, stop):
        sums[block] = 0.0
        for r in range(block * ROWS, min(x.shape[0], (block + 1) * ROWS)):
            for i in range(x.shape[1]):
                sums[block, i] += x[r, i]


@threaded(**STRICT)
def _add_to_rows(start, stop, x, bias):
    for r in range(start, stop):
        for i in range(x.shape[1]):
            x[r, i] += bias[i]


class Dense(Function):
    """x w^T + b: float32 [..., C], weight [D, C], bias [D] -> [..., D]."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        y = matmul(rows_of(x), array(weight), transpose_b=True)
        _add_to_rows(len(y), memory(y), array(bias))
        return y.reshape(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = rows_of(gradient)
        sums = np.empty((-(-len(gradient) // ROWS), gradient.shape[1]))
        _column_sums(len(sums), gradient, sums)
        grad_x = matmul(gradient, array(weight)).reshape(x.shape) if ctx.needs_input_grad[0] else None
        grad_weight = matmul(gradient, rows_of(x), transpose_a=True)
        return grad_x, grad_weight, Tensor(sums.sum(axis=0).astype(np.float32))


@njit(fastmath=True)
def _largest(row):
    largest = row[0]
    for i in range(row.size):
        largest = max(largest, row[i])
    return largest


@threaded(**SUMS)
def _softmax(start, stop, x, scale):
    """Softmax of scale * x, in place."""
    for r in range(start, stop):
        largest = _largest(x[r])
        total = f32(0)
        for i in range(x.shape[1]):
            x[r, i] = _exp((x[r, i] - largest) * scale)
            total += x[r, i]
        total = f32(1) / total
        for i in range(x.shape[1]):
            x[r, i] *= total


@threaded(**SUMS)
def _softmax_gradient(start, stop, y, scale, gradient):
    """scale y (g - sum(g y)), in place of the gradient g."""
    for r in range(start, stop):
        total = f32(0)
        for i in range(y.shape[1]):
            total += y[r, i] * gradient[r, i]
        for i in range(y.shape[1]):
            gradient[r, i] = scale * y[r, i] * (gradient[r, i] - total)


@threaded()
def _copy(start, stop, source, target):
    """Copy [N, heads, T, head_dim]; either side may be transposed. MindSpore's copy takes ten times as long."""
    for n in range(start, stop):
        for head in range(target.shape[1]):
            for token in range(target.shape[2]):
                for i in range(target.shape[3]):
                    target[n, head, token, i] = source[n, head, token, i]


def _split_heads(x: np.ndarray, parts: int, num_heads: int, head_dim: int) -> np.ndarray:
    """View [N, T, parts * D] as [parts, N, heads, T, head_dim]."""
    return x.reshape(*x.shape[:2], parts, num_heads, head_dim).transpose(2, 0, 3, 1, 4)


class Attention(Function):
    """softmax(q k^T / sqrt(head_dim)) v of each head: queries, keys and values float32 [N, T, 3 * D] -> [N, T, D]."""

    @staticmethod
    def forward(ctx, qkv, num_heads, head_dim):
        batch, tokens, _ = qkv.shape
        ctx.scale = f32(head_dim**-0.5)
        parts = [empty((batch, num_heads, tokens, head_dim)) for _ in range(3)]
        query, key, value = map(memory, parts)
        for source, target in zip(_split_heads(array(qkv), 3, num_heads, head_dim), (query, key, value), strict=True):
            _copy(batch, source, target)
        weights = matmul(query, key, transpose_b=True)  # [N, heads, T, T]
        scores = memory(weights).reshape(-1, tokens)
        _softmax(len(scores), scores, ctx.scale)
        ctx.save_for_backward(*parts, weights)
        mixed = matmul(memory(weights), value)  # [N, heads, T, head_dim]
        out = empty((batch, tokens, num_heads * head_dim))
        _copy(batch, array(mixed), _split_heads(memory(out), 1, num_heads, head_dim)[0])
        return out

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, weights = map(array, ctx.saved_tensors)
        batch, num_heads, tokens, head_dim = query.shape
        grad_mixed = memory(empty(query.shape))
        _copy(batch, _split_heads(array(gradient), 1, num_heads, head_dim)[0], grad_mixed)
        grad_scores = memory(matmul(grad_mixed, value, transpose_b=True))
        grad_value = matmul(weights, grad_mixed, transpose_a=True)
        rows = weights.reshape(-1, tokens)
        _softmax_gradient(len(rows), rows, ctx.scale, grad_scores.reshape(rows.shape))
        grad_query = matmul(grad_scores, key)
        grad_key = matmul(grad_scores, query, transpose_a=True)
        out = empty((batch, tokens, 3 * num_heads * head_dim))
        gradients = grad_query, grad_key, grad_value
        for source, target in zip(gradients, _split_heads(memory(out), 3, num_heads, head_dim), strict=True):
            _copy(batch, array(source), target)
        return out, None, None


@threaded(**STRICT)
def _dropout(start, stop, x, noise, multipliers, limit, scale, y):
    for r in range(start, stop):
        for part in range(multipliers.size):
            multiplier = multipliers[part]
            for i in range(noise.shape[1]):
                dropped = np.int32(noise[r, i] * multiplier) < limit  # the product wraps
                y[r, part, i] = f32(0) if dropped else x[r, part, i] * scale


def _dropped(x: Tensor, noise: Tensor, multipliers: np.ndarray, limit: int, scale: float) -> Tensor:
    y = empty(x.shape)
    rows = rows_of(noise)
    shape = len(rows), len(multipliers), rows.shape[1]
    options = multipliers, np.int32(limit), f32(scale)
    _dropout(len(rows), array(x).reshape(shape), rows, *options, memory(y).reshape(shape))
    return y


class Dropout(Function):
    """x float32 [..., parts * C] times scale, dropped where noise, int32 [..., C], times the part's multiplier, int32
    [parts], is below the limit."""

    @staticmethod
    def forward(ctx, x, noise, multipliers, limit, scale):
        ctx.save_for_backward(noise)
        ctx.options = multipliers, limit, scale
        return _dropped(x, noise, *ctx.options)

    @staticmethod
    def backward(ctx, gradient):
        (noise,) = ctx.saved_tensors
        return _dropped(gradient, noise, *ctx.options), None, None, None, None


@threaded()
def _times(start, stop, x, factors, y):
    for n in range(start, stop):
        for i in range(x.shape[1]):
            y[n, i] = x[n, i] * factors[n]


def _scaled(x: Tensor, factors: Tensor) -> Tensor:
    y = empty(x.shape)
    _times(len(x), array(x).reshape(len(x), -1), array(factors), memory(y).reshape(len(x), -1))
    return y


class DropPath(Function):
    """Multiply each sample by its factor: x float32 [N, ...], factors float32 [N] -> [N, ...]."""

    @staticmethod
    def forward(ctx, x, factors):
        ctx.save_for_backward(factors)
        return _scaled(x, factors)

    @staticmethod
    def backward(ctx, gradient):
        return _scaled(gradient, *ctx.saved_tensors), None
