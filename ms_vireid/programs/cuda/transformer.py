"""A ViT's block by the CUDA kernels."""

import struct
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.models import vit
from ms_vireid.models.layers import Dropout, DropPath
from ms_vireid.models.noise import Noise, mask_numbers
from ms_vireid.programs.cuda import build
from ms_vireid.programs.cuda.operators import operator, same, with_sums, with_sums_types


def _with_two_sums(gradient, *_):
    x, parts, sums = with_sums(gradient)
    return x, (2, *parts), sums, sums


def _joined_with_sums(query, _key, _value, tokens):
    batch, heads, _, width = query
    return with_sums((batch, tokens[0], 3 * heads * width))


def _merged(x, tokens):
    batch, heads, _, width = x
    return batch, tokens[0], heads * width


def _split(x, places, parts=1):
    batch, _, columns = x
    heads, padded = places
    return batch, heads, padded, columns // (parts * heads)


class LayerNorm(nn.Cell):
    """Normalises x [..., C] over C, with gamma and beta [C]. eps: float32 [1]."""

    def __init__(self):
        super().__init__()
        self.forward = operator(
            "layer_norm", lambda x, *_: (x, x[:-1], x[:-1]), lambda x, *_: (x, ms.float32, ms.float32)
        )
        self.backward = operator("layer_norm_gradient", _with_two_sums, lambda x, *_: (x, ms.float32, x, x))

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the result, and mean and 1 / standard deviation of the rows."""
        return self.forward(x, gamma, beta, eps)

    def bprop(self, x, gamma, beta, eps, out, gradients):
        grad_x, _, grad_gamma, grad_beta = self.backward(gradients[0], x, gamma, out[1], out[2])
        return grad_x, grad_gamma, grad_beta, ops.zeros_like(eps)


class Gelu(nn.Cell):
    """dropout(GELU(x + bias)) of x [..., C], bias [C]."""

    def __init__(self):
        super().__init__()
        self.forward = operator("gelu", same, same)
        self.backward = operator("gelu_gradient", lambda gradient, *_: with_sums(gradient), with_sums_types)

    def construct(self, x: Tensor, bias: Tensor, noise: Tensor, multipliers: Tensor, layer: Tensor) -> Tensor:
        return self.forward(x, bias, noise, multipliers, layer)

    def bprop(self, x, bias, noise, multipliers, layer, _out, gradient):
        grad_x, _, grad_bias = self.backward(gradient, x, bias, noise, multipliers, layer)
        return grad_x, grad_bias, ops.zeros_like(noise), ops.zeros_like(multipliers), ops.zeros_like(layer)


class Residual(nn.Cell):
    """rest + factors dropout(x + bias) of rest and x [N, T, C], bias [C], factors [N]."""

    def __init__(self):
        super().__init__()
        self.forward = operator("residual", same, same)
        self.backward = operator("residual_gradient", lambda gradient, *_: with_sums(gradient), with_sums_types)

    def construct(
        self, rest: Tensor, x: Tensor, bias: Tensor, factors: Tensor, noise: Tensor, multipliers: Tensor, layer: Tensor
    ) -> Tensor:
        return self.forward(rest, x, bias, factors, noise, multipliers, layer)

    def bprop(self, rest, x, bias, factors, noise, multipliers, layer, _out, gradient):
        grad_x, _, grad_bias = self.backward(gradient, factors, noise, multipliers, layer)
        zeros = ops.zeros_like(factors), ops.zeros_like(noise), ops.zeros_like(multipliers), ops.zeros_like(layer)
        return gradient, grad_x, grad_bias, *zeros


class SplitHeads(nn.Cell):
    """Queries, scaled by 1 / sqrt(head_dim), keys and values [N, heads, T', head_dim] from [N, T, 3 * D] + bias, with
    zeros for tokens from T on.

    places, tokens: int32 [heads, T'] and [T], of any values.
    """

    def __init__(self):
        super().__init__()
        self.forward = operator(
            "split_heads", lambda x, _, places: (_split(x, places, 3),) * 3, lambda x, *_: (x, x, x)
        )
        self.backward = operator("split_heads_gradient", _joined_with_sums, with_sums_types)

    def construct(self, joined: Tensor, bias: Tensor, places: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.forward(joined, bias, places)

    def bprop(self, joined, bias, places, tokens, _out, gradients):
        grad_joined, _, grad_bias = self.backward(gradients[0], gradients[1], gradients[2], tokens)
        return grad_joined, grad_bias, ops.zeros_like(places), ops.zeros_like(tokens)


class MergeHeads(nn.Cell):
    """[N, heads, T', head_dim] -> [N, T, D], with places and tokens of `SplitHeads`."""

    def __init__(self):
        super().__init__()
        self.forward = operator("merge_heads", _merged, same)
        self.backward = operator("merge_heads_gradient", _split, same)

    def construct(self, x: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
        return self.forward(x, tokens)

    def bprop(self, x, places, tokens, _out, gradient):
        return self.backward(gradient, places), ops.zeros_like(places), ops.zeros_like(tokens)


class Softmax(nn.Cell):
    """Softmax over the first T of T' tokens of x [N, heads, T', T'], 0 elsewhere. tokens: int32 [T], of any values."""

    def __init__(self):
        super().__init__()
        self.forward = operator("softmax", same, same)
        self.backward = operator("softmax_gradient", same, same)

    def construct(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.forward(x, tokens)

    def bprop(self, x, tokens, out, gradient):
        return self.backward(gradient, out, tokens), ops.zeros_like(tokens)


# Tokens are padded to a multiple. cuBLAS computes products of odd rows at half speed: in float16 attention's took 9.7
# ms of a PMT's step on an H100.
PADDED_TO = {ms.float16: 8, ms.float32: 4}
_layer_norm, _gelu, _residual = LayerNorm(), Gelu(), Residual()
_split_heads, _merge_heads, _softmax = SplitHeads(), MergeHeads(), Softmax()
_WIDEST, _MOST_TOKENS = build.constant("WIDEST"), build.constant("MOST_TOKENS")
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
def _zeros(*shape: int) -> Tensor:
    """int32: numbers that the kernels read from a shape, and [1] in place of noise, multipliers and layer without
    dropout."""
    return Tensor(np.zeros(shape, np.int32))


@ops.constexpr
def _padded(tokens: int, dtype: ms.Type) -> int:
    each = PADDED_TO[dtype]
    padded = -(-tokens // each) * each
    return padded if padded <= _MOST_TOKENS else tokens


@ops.constexpr
@cache
def _no_factors(dtype: ms.Type) -> Tensor:
    return Tensor(np.ones(1), dtype)


@ops.constexpr
@cache
def _number(value: float) -> Tensor:
    return Tensor(np.array([value], np.float32))


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T of x [N, T, C], weight [D, C]."""
    batch, tokens, width = x.shape
    return _linear(x.reshape(batch * tokens, width), weight).reshape(batch, tokens, weight.shape[0])


def _attended(self: vit.Attention, x: Tensor) -> Tensor:
    """Attention up to the projection's product, without its bias."""
    padded = _padded(x.shape[1], x.dtype)
    tokens, places = _zeros(x.shape[1]), _zeros(self.num_heads, padded)
    query, key, value = _split_heads(_product(x, self.qkv.weight), self.qkv.bias, places, tokens)
    scores = _scores(query, key)  # [N, heads, T', T']
    attention = _softmax(scores, tokens) if padded <= _MOST_TOKENS else ops.softmax(scores, -1)
    mixed = _mixed(attention, value)  # [N, heads, T', head_dim]
    return _product(_merge_heads(mixed, places, tokens), self.proj.weight)


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


def layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    if len(self.normalized_shape) > 1 or self.normalized_shape[0] > _WIDEST:
        return nn.LayerNorm.construct(self, x)
    return _layer_norm(x, self.gamma.astype(x.dtype), self.beta.astype(x.dtype), _number(self.epsilon))[0]


def block(self: vit.Block, x: Tensor, noise: Noise | None = None) -> Tensor:
    attention, mlp = self.attn, self.mlp
    branch = _attended(attention, self.norm1(x))
    x = _added(x, branch, attention.proj.bias, attention.proj_drop, self.drop_path1, noise)
    branch = _hidden(mlp, self.norm2(x), noise)
    return _added(x, branch, mlp.fc2.bias, mlp.drop2, self.drop_path2, noise)


TABLE = {
    vit.Block.construct: block,
    # PMT: 5.3 ms in float32, 4.6 in float16 for 2.3 and 1.2.
    nn.LayerNorm.construct: layer_norm,
}
