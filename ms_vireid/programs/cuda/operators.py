"""The kernels as MindSpore operators with gradients, and the methods that they replace; compiled at the import."""

import math
import struct
from collections.abc import Callable
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter

from ms_vireid.models import vit
from ms_vireid.models.auxiliary_generator import ResidualDepthwise
from ms_vireid.models.layers import Dropout, DropPath
from ms_vireid.models.noise import Noise, mask_numbers
from ms_vireid.programs.cuda import build

_PARTS, _ROWS = build.constant("PARTS"), build.constant("ROWS")
_LAUNCHER = build.launcher()


def _operator(name: str, shapes: Callable, types: Callable) -> ops.Custom:
    """shapes, types: of the outputs, from those of the inputs."""
    return ops.Custom(f"{_LAUNCHER}:{name}", out_shape=shapes, out_dtype=types, func_type="aot")


def _same(x, *_):
    return x


def _with_sums(x):
    """Shapes of a gradient [..., C], the partial sums of its columns, and their sums."""
    return x, (min(_PARTS, -(-math.prod(x[:-1]) // _ROWS)), x[-1]), (x[-1],)


def _with_sums_types(x, *_):
    return x, ms.float32, x


def _joined_with_sums(query, *_):
    batch, heads, tokens, width = query
    return _with_sums((batch, tokens, 3 * heads * width))


def _merged(x):
    batch, heads, tokens, width = x
    return batch, tokens, heads * width


def _split(x, heads, parts=1):
    batch, tokens, columns = x
    return batch, heads[0], tokens, columns // (parts * heads[0])


class Gelu(nn.Cell):
    """dropout(GELU(x + bias)) of x [..., C], bias [C]."""

    def __init__(self):
        super().__init__()
        self.forward = _operator("gelu", _same, _same)
        self.backward = _operator("gelu_gradient", lambda gradient, *_: _with_sums(gradient), _with_sums_types)

    def construct(self, x: Tensor, bias: Tensor, noise: Tensor, multipliers: Tensor, layer: Tensor) -> Tensor:
        return self.forward(x, bias, noise, multipliers, layer)

    def bprop(self, x, bias, noise, multipliers, layer, _out, gradient):
        grad_x, _, grad_bias = self.backward(gradient, x, bias, noise, multipliers, layer)
        return grad_x, grad_bias, ops.zeros_like(noise), ops.zeros_like(multipliers), ops.zeros_like(layer)


class Residual(nn.Cell):
    """rest + factors dropout(x + bias) of rest and x [N, T, C], bias [C], factors [N]."""

    def __init__(self):
        super().__init__()
        self.forward = _operator("residual", _same, _same)
        self.backward = _operator("residual_gradient", lambda gradient, *_: _with_sums(gradient), _with_sums_types)

    def construct(
        self, rest: Tensor, x: Tensor, bias: Tensor, factors: Tensor, noise: Tensor, multipliers: Tensor, layer: Tensor
    ) -> Tensor:
        return self.forward(rest, x, bias, factors, noise, multipliers, layer)

    def bprop(self, rest, x, bias, factors, noise, multipliers, layer, _out, gradient):
        grad_x, _, grad_bias = self.backward(gradient, factors, noise, multipliers, layer)
        zeros = ops.zeros_like(factors), ops.zeros_like(noise), ops.zeros_like(multipliers), ops.zeros_like(layer)
        return gradient, grad_x, grad_bias, *zeros


class SplitHeads(nn.Cell):
    """Queries, scaled by 1 / sqrt(head_dim), keys and values [N, heads, T, head_dim] from [N, T, 3 * D] + bias.

    heads: int32 [heads], of any values.
    """

    def __init__(self):
        super().__init__()
        self.forward = _operator("split_heads", lambda x, _, heads: (_split(x, heads, 3),) * 3, lambda x, *_: (x, x, x))
        self.backward = _operator("split_heads_gradient", _joined_with_sums, _with_sums_types)

    def construct(self, joined: Tensor, bias: Tensor, heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.forward(joined, bias, heads)

    def bprop(self, joined, bias, heads, _out, gradients):
        grad_joined, _, grad_bias = self.backward(gradients[0], gradients[1], gradients[2])
        return grad_joined, grad_bias, ops.zeros_like(heads)


class MergeHeads(nn.Cell):
    """[N, heads, T, head_dim] -> [N, T, D]. heads: int32 [heads], of any values."""

    def __init__(self):
        super().__init__()
        self.forward = _operator("merge_heads", _merged, _same)
        self.backward = _operator("merge_heads_gradient", _split, _same)

    def construct(self, x: Tensor, heads: Tensor) -> Tensor:
        return self.forward(x)

    def bprop(self, x, heads, _out, gradient):
        return self.backward(gradient, heads), ops.zeros_like(heads)


class Softmax(nn.Cell):
    """Softmax over the last axis."""

    def __init__(self):
        super().__init__()
        self.backward = _operator("softmax_gradient", _same, _same)

    def construct(self, x: Tensor) -> Tensor:
        return ops.softmax(x, -1)

    def bprop(self, x, out, gradient):
        return (self.backward(gradient, out),)


class Depthwise(nn.Cell):
    """Depth-wise convolution of x [N, C, H, W] with weight [C, 1, K, K], stride 1, "same" padding. residual: convolve
    ReLU(x), add x."""

    def __init__(self, residual: bool = False):
        super().__init__()
        self.residual = residual
        name = "residual_depthwise" if residual else "depthwise"
        self.forward = _operator(name, _same, _same)
        self.backward = _operator(f"{name}_gradient", _same, _same)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.forward(x, weight)

    def bprop(self, x, weight, _out, gradient):
        if self.residual:
            grad_x, convolved = self.backward(gradient, weight, x), ops.relu(x)
        else:
            grad_x, convolved = self.backward(gradient, weight), x
        channels, _, size, _ = weight.shape
        border = (size // 2,) * 4
        grad_weight = Conv2DBackpropFilter(channels, (size, size), "pad", border, border, group=channels)
        return grad_x, grad_weight(gradient, convolved, weight.shape)


_gelu, _residual, _split_heads, _merge_heads, _softmax = Gelu(), Residual(), SplitHeads(), MergeHeads(), Softmax()
_depthwise, _residual_depthwise = Depthwise(), Depthwise(residual=True)
_SIZES = (3, 5, 7)  # of depth-wise kernels
_linear = ops.MatMul(transpose_b=True)
_scores, _mixed = ops.BatchMatMul(transpose_b=True), ops.BatchMatMul()


@ops.constexpr
@cache
def _layer(limit: int, scale: float) -> Tensor:
    """The `layer` of the kernels' `Masks`: int32 [3]. Its first mask is the first of `_numbers`."""
    return Tensor(np.array([0, limit, *struct.unpack("i", struct.pack("f", scale))], np.int32))


@ops.constexpr
@cache
def _numbers(layer: int, parts: int) -> Tensor:
    return Tensor(mask_numbers(layer, parts), ms.int32)


@ops.constexpr
@cache
def _zeros(count: int) -> Tensor:
    """int32 [count]: the kernels' heads, and [1] in place of noise, multipliers and layer without dropout."""
    return Tensor(np.zeros(count, np.int32))


@ops.constexpr
@cache
def _no_factors(dtype: ms.Type) -> Tensor:
    return Tensor(np.ones(1), dtype)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T of x [N, T, C], weight [D, C]."""
    batch, tokens, width = x.shape
    return _linear(x.reshape(batch * tokens, width), weight).reshape(batch, tokens, weight.shape[0])


def _attended(self: vit.Attention, x: Tensor) -> Tensor:
    """Attention up to the projection's product, without its bias."""
    heads = _zeros(self.num_heads)
    query, key, value = _split_heads(_product(x, self.qkv.weight), self.qkv.bias, heads)
    mixed = _mixed(_softmax(_scores(query, key)), value)  # [N, heads, T, head_dim]
    return _product(_merge_heads(mixed, heads), self.proj.weight)


def _hidden(self: vit.Mlp, x: Tensor, noise: Noise | None) -> Tensor:
    """The MLP up to its second product, without its bias."""
    x, bias = _product(x, self.fc1.weight), self.fc1.bias
    if noise is None:
        x = _gelu(x, bias, _zeros(1), _zeros(1), _zeros(1))
    else:
        dropout = self.drop1
        numbers = _numbers(dropout.layer, dropout.parts)
        x = _gelu(x, bias, noise[0], numbers, _layer(dropout.limit, dropout.scale))
    return _product(x, self.fc2.weight)


def _added(rest: Tensor, x: Tensor, bias: Tensor, dropout: Dropout, drop_path: DropPath, noise: Noise | None) -> Tensor:
    """rest + drop_path(dropout(x + bias))."""
    if noise is None:
        return _residual(rest, x, bias, _no_factors(x.dtype), _zeros(1), _zeros(1), _zeros(1))
    positions, factors = noise
    sample_factors = factors[drop_path.layer] if drop_path.changes else _no_factors(x.dtype)
    return _residual(rest, x, bias, sample_factors, positions, _numbers(dropout.layer, 1), _layer(dropout.limit, 1.0))


def block(self: vit.Block, x: Tensor, noise: Noise | None = None) -> Tensor:
    attention, mlp = self.attn, self.mlp
    branch = _attended(attention, self.norm1(x))
    x = _added(x, branch, attention.proj.bias, attention.proj_drop, self.drop_path1, noise)
    branch = _hidden(mlp, self.norm2(x), noise)
    return _added(x, branch, mlp.fc2.bias, mlp.drop2, self.drop_path2, noise)


def _by_channel(self: nn.Conv2d) -> bool:
    """Whether the kernels compute this depth-wise convolution."""
    size, channels = self.kernel_size[0], self.in_channels
    plain = self.stride == (1, 1) and self.dilation == (1, 1) and not self.has_bias
    return plain and self.group == self.out_channels == channels and self.kernel_size == (size, size) and size in _SIZES


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    return _depthwise(x, self.weight) if _by_channel(self) else nn.Conv2d.construct(self, x)


def residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    return _residual_depthwise(x, self.weight) if _by_channel(self) else ResidualDepthwise.construct(self, x)


TABLE = {vit.Block.construct: block, nn.Conv2d.construct: convolution, ResidualDepthwise.construct: residual_depthwise}
