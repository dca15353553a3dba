"""A ViT's block by the CUDA kernels, forward and backward as one cell."""

from functools import cache
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.backends import settings
from ms_vireid.backends.cuda.operators import ABSENT, Differentiable, differentiated, operator
from ms_vireid.backends.graph.common import product, product_transposed
from ms_vireid.models import vit
from ms_vireid.models.layers import Dropout, DropPath
from ms_vireid.models.layers import LayerNorm as FloatLayerNorm
from ms_vireid.models.noise import Noise, drop_limit, mask_numbers, noise_constants
from ms_vireid.replaceable import Replacement

_matmul, _matmul_transposed, _transposed_matmul = ops.MatMul(), ops.MatMul(False, True), ops.MatMul(True)
_transposed_batches = ops.BatchMatMul(True)

# Tokens are padded to a multiple. On an H100 in float16 cuBLAS computes attention's products of 216 tokens in a quarter
# of the time of 211 (0.058 for 0.201 ms, 0.044 for 0.183, 0.044 for 0.170); in float32 those of 212 and 216 are slower.
PADDED_TO = {ms.float16: 8, ms.float32: 1}

# The noise, or what its rows [N * T] and columns [C] start from, the others ABSENT; and the factors of drop paths.
Drawn = tuple[Tensor, Tensor, Tensor, Tensor]


class Drop(NamedTuple):
    """What a dropout's kernel drops, and the layer of the drop path behind it."""

    limit: int
    scale: float
    layer: int = 0


class Settings(NamedTuple):
    """The numbers of a block. padded: tokens T'."""

    heads: int
    padded: int
    epsilons: tuple[float, float]
    proj_drop: Drop
    drop1: Drop
    drop2: Drop


@ops.constexpr
@cache
def _settings(heads: int, padded: int, epsilons: tuple[float, float], drops: tuple[tuple, ...]) -> Settings:
    """A constant of the graph: a NamedTuple that a graph makes itself has no gradient (MindSpore 2.10)."""
    return Settings(heads, padded, epsilons, *(Drop(*numbers) for numbers in drops))


@ops.constexpr
@cache
def _multipliers(number: int, parts: int) -> Tensor:
    """Of a dropout's masks: its number, times that of each part; products wrap."""
    return Tensor(np.array(mask_numbers(0, parts), np.int32) * np.int32(number))


@ops.constexpr
def _padded(tokens: int, dtype: ms.Type) -> int:
    return -(-tokens // PADDED_TO[dtype]) * PADDED_TO[dtype]


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T of x [N, T, C], weight [D, C]."""
    return _matmul_transposed(_rows(x), weight).reshape(x.shape[0], x.shape[1], weight.shape[0])


def _of_input(gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `_product`'s x."""
    return _matmul(_rows(gradient), weight).reshape(gradient.shape[0], gradient.shape[1], weight.shape[1])


def _of_weight(gradient: Tensor, x: Tensor) -> Tensor:
    return _transposed_matmul(_rows(gradient), _rows(x))


class Block(nn.Cell):
    """x + attention(norm(x)), then x + MLP(norm(x)), of x [N, T, D]; and the gradients.

    noise: as `Drawn`, with the factors [layers, N] of either drop path. multipliers: of the masks of the dropouts after
    the projection and both layers of the MLP; ABSENT if nothing is dropped.

    recomputes: keep x alone for the gradients.
    """

    def __init__(self, recomputes: bool):
        super().__init__()
        self.recomputes = recomputes

    def construct(self, x, weights, noise, multipliers, settings):
        """Returns the output, and what the gradients need."""
        outputs = _forward(x, weights, noise, multipliers, settings)
        return outputs[:1] if self.recomputes else outputs

    def bprop(self, x, weights, noise, multipliers, settings, out, gradients):
        gradient = gradients[0]
        if self.recomputes:
            x = ops.depend(x, gradient)  # begins when the gradient is there, not right after the forward pass
            out = _forward(x, weights, noise, multipliers, settings)
        grad_x, grad_weights = _backward(gradient, x, weights, noise, multipliers, settings, out)
        return grad_x, grad_weights, _no_gradients(noise), _no_gradients(multipliers), 0


def _no_gradients(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    zeros = ()
    for tensor in tensors:
        zeros += (ops.zeros_like(tensor),)
    return zeros


def _forward(x, weights, noise, multipliers, settings):
    gamma1, beta1, qkv, qkv_bias, proj, proj_bias, gamma2, beta2, fc1, fc1_bias, fc2, fc2_bias = weights
    *starts, factors1, factors2 = noise
    proj_mask, mask1, mask2 = (*starts, multipliers[0]), (*starts, multipliers[1]), (*starts, multipliers[2])
    heads, padded, tokens = settings.heads, settings.padded, x.shape[1]

    norm1, mean1, scale1 = operator("layer_norm", eps=settings.epsilons[0])(x, gamma1, beta1)
    query, key, value = operator("split_heads", heads=heads, padded=padded)(_product(norm1, qkv), qkv_bias)
    attention = operator("softmax", tokens=tokens)(product_transposed(query, key))  # [N, heads, T', T']
    merged = operator("merge_heads", tokens=tokens)(product(attention, value))
    branch = _product(merged, proj)
    middle = _added("residual", settings.proj_drop)(x, branch, proj_bias, factors1, *proj_mask)

    norm2, mean2, scale2 = operator("layer_norm", eps=settings.epsilons[1])(middle, gamma2, beta2)
    hidden = _product(norm2, fc1)
    activated = _dropped("gelu", settings.drop1)(hidden, fc1_bias, *mask1)
    branch = _product(activated, fc2)
    out = _added("residual", settings.drop2)(middle, branch, fc2_bias, factors2, *mask2)
    return out, mean1, scale1, query, key, value, attention, merged, middle, mean2, scale2, hidden, activated


def _backward(gradient, x, weights, noise, multipliers, settings, kept):
    """What follows a weight's gradient depends on it: otherwise a graph puts it off, and keeps what it needs."""
    gamma1, beta1, qkv, _, proj, _, gamma2, beta2, fc1, fc1_bias, fc2, _ = weights
    *starts, factors1, factors2 = noise
    proj_mask, mask1, mask2 = (*starts, multipliers[0]), (*starts, multipliers[1]), (*starts, multipliers[2])
    heads, padded, tokens = settings.heads, settings.padded, x.shape[1]
    _, mean1, scale1, query, key, value, attention, merged, middle, mean2, scale2, hidden, activated = kept
    layer_norm_gradient = operator("layer_norm_gradient")

    grad_branch, fc2_parts = _added("residual_gradient", settings.drop2)(gradient, factors2, *mask2)
    grad_fc2 = _of_weight(grad_branch, activated)
    grad_branch = ops.depend(grad_branch, grad_fc2)
    grad_activated = _of_input(grad_branch, fc2)
    grad_hidden, fc1_parts = _dropped("gelu_gradient", settings.drop1)(grad_activated, hidden, fc1_bias, *mask1)
    grad_norm2 = _of_input(grad_hidden, fc1)
    grad_middle, norm2, gamma2_parts, beta2_parts = layer_norm_gradient(
        grad_norm2, middle, gamma2, mean2, scale2, beta2, gradient
    )
    grad_fc1 = _of_weight(grad_hidden, norm2)
    grad_middle = ops.depend(grad_middle, grad_fc1)

    grad_branch, proj_parts = _added("residual_gradient", settings.proj_drop)(grad_middle, factors1, *proj_mask)
    grad_proj = _of_weight(grad_branch, merged)
    grad_branch = ops.depend(grad_branch, grad_proj)
    grad_merged = _of_input(grad_branch, proj)
    grad_mixed = operator("merge_heads_gradient", heads=heads, padded=padded)(grad_merged)
    grad_value = _transposed_batches(attention, grad_mixed)
    grad_attention = product_transposed(grad_mixed, value)
    grad_scores = operator("softmax_gradient", tokens=tokens)(grad_attention, attention)
    grad_query, grad_key = product(grad_scores, key), _transposed_batches(grad_scores, query)
    grad_joined, qkv_parts = operator("split_heads_gradient", tokens=tokens)(grad_query, grad_key, grad_value)
    grad_norm1 = _of_input(grad_joined, qkv)
    grad_x, norm1, gamma1_parts, beta1_parts = layer_norm_gradient(
        grad_norm1, x, gamma1, mean1, scale1, beta1, grad_middle
    )
    grad_qkv = _of_weight(grad_joined, norm1)

    parts = gamma1_parts, beta1_parts, qkv_parts, proj_parts, gamma2_parts, beta2_parts, fc1_parts, fc2_parts
    sums = _sums(gamma1, parts)
    grad_x = ops.depend(grad_x, (sums, grad_qkv))
    grad_gamma1, grad_beta1, grad_qkv_bias, grad_proj_bias = sums[:4]
    grad_gamma2, grad_beta2, grad_fc1_bias, grad_fc2_bias = sums[4:]
    grad_attention_weights = grad_gamma1, grad_beta1, grad_qkv, grad_qkv_bias, grad_proj, grad_proj_bias
    grad_mlp_weights = grad_gamma2, grad_beta2, grad_fc1, grad_fc1_bias, grad_fc2, grad_fc2_bias
    return grad_x, grad_attention_weights + grad_mlp_weights


def _dropped(name: str, drop: Drop) -> ops.Custom:
    return operator(name, limit=drop.limit, scale=drop.scale)


def _added(name: str, drop: Drop) -> ops.Custom:
    return operator(name, limit=drop.limit, scale=drop.scale, layer=drop.layer)


def _sums(like: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Sums over the rows of each, in the type of `like`."""
    widths = ()
    for each in parts:
        widths += (each.shape[1],)
    return operator("sums", widths=widths)(like, *parts)


class LayerNorm(nn.Cell):
    """Of rows; and the gradients."""

    def construct(self, x, gamma, beta, eps):
        """Returns the output, and what the gradients need."""
        return operator("layer_norm", eps=eps)(x, gamma, beta)

    def bprop(self, x, gamma, beta, eps, out, gradients):
        grad_x, _, gamma_parts, beta_parts = operator("layer_norm_gradient")(
            gradients[0], x, gamma, out[1], out[2], ABSENT, ABSENT
        )
        return grad_x, *_sums(gamma, (gamma_parts, beta_parts)), 0


_norm, _dropout = LayerNorm(), Differentiable("dropout")
_block, _recomputed_block = Block(recomputes=False), Block(recomputes=True)
_FLOATS, _LEAST_LIMIT = (ms.float32, ms.float16), drop_limit(0.0)


def layer_norm(self: FloatLayerNorm, x: Tensor) -> Tensor:
    if x.dtype not in _FLOATS or self.gamma.shape != x.shape[-1:] or self.beta.shape != x.shape[-1:] or x.size == 0:
        return FloatLayerNorm.construct(self, x)
    gamma, beta = self.gamma.value().astype(x.dtype), self.beta.value().astype(x.dtype)
    return _norm(x, gamma, beta, self.epsilon)[0]


def _drops(layer: Dropout) -> bool:
    return layer.training and layer.rate != 0.0


def dropout(self: Dropout, x: Tensor, noise: Noise | None) -> Tensor:
    if _drops(self) and (x.dtype not in _FLOATS or x.size != self.parts * noise[0].size or x.size == 0):
        return Dropout.construct(self, x, noise)
    return _with_dropout(self, x, _drawn(noise))


def _drawn(noise: Noise | None) -> Drawn | None:
    return None if noise is None else (noise[0], ABSENT, ABSENT, noise[1])


def _with_dropout(layer: Dropout, x: Tensor, noise: Drawn | None) -> Tensor:
    if not _drops(layer):
        return x
    mask = (*noise[:3], _multipliers(layer.number, layer.parts))
    return differentiated(_dropout, x, *mask, limit=layer.limit, scale=layer.scale)[0]


def encoded(self: vit.VisionTransformer, x: Tensor, key: Tensor | None) -> Tensor:
    """Draws only what the noise starts from, which the kernels hash where they need it."""
    noise = None
    if self.training and self.stochastic:
        constants = noise_constants(x.shape, self.path_rates, self.pos_drop.rate, self.shard)
        rows, factors = operator("draw_starts")(key, *constants[:-1])
        noise = ABSENT, ops.stop_gradient(rows), constants[-1], ops.stop_gradient(factors).astype(x.dtype)
    x = _with_dropout(self.pos_drop, x, noise)
    for each in self.blocks:
        x = _computed(each, _recomputed_block if self.training and self.recompute_blocks else _block, x, noise)
    return x


def _limit_and_scale(layer: Dropout) -> tuple[int, float]:
    """Of a dropout, by its own training flag; below the least limit there is nothing to drop."""
    return (layer.limit, layer.scale) if _drops(layer) else (_LEAST_LIMIT, 1.0)


def _factors(path: DropPath, noise: Drawn | None) -> Tensor:
    return noise[3] if path.training and path.changes else ABSENT


def _computed(block: vit.Block, cell: Block, x: Tensor, noise: Drawn | None) -> Tensor:
    attention, mlp = block.attn, block.mlp
    weights = (
        *(block.norm1.gamma, block.norm1.beta, attention.qkv.weight, attention.qkv.bias),
        *(attention.proj.weight, attention.proj.bias, block.norm2.gamma, block.norm2.beta),
        *(mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias),
    )
    starts, multipliers = (ABSENT,) * 3, (ABSENT,) * 3
    if _drops(attention.proj_drop) or _drops(mlp.drop1) or _drops(mlp.drop2):
        starts = noise[:3]
        multipliers = (
            _multipliers(attention.proj_drop.number, attention.proj_drop.parts),
            _multipliers(mlp.drop1.number, mlp.drop1.parts),
            _multipliers(mlp.drop2.number, mlp.drop2.parts),
        )
    drops = (
        (*_limit_and_scale(attention.proj_drop), block.drop_path1.layer),
        _limit_and_scale(mlp.drop1),
        (*_limit_and_scale(mlp.drop2), block.drop_path2.layer),
    )
    epsilons = block.norm1.epsilon, block.norm2.epsilon
    settings = _settings(attention.num_heads, _padded(x.shape[1], x.dtype), epsilons, drops)
    factors = _factors(block.drop_path1, noise), _factors(block.drop_path2, noise)
    return cell(x, weights, (*starts, *factors), multipliers, settings)[0]


def block(self: vit.Block, x: Tensor, noise: Noise | None = None) -> Tensor:
    return _computed(self, _block, x, _drawn(noise))


def knows_block(block: vit.Block) -> bool:
    attention, mlp = block.attn, block.mlp
    width, hidden = attention.qkv.in_channels, mlp.fc1.out_channels
    layers = (attention.qkv, 3 * width), (attention.proj, width), (mlp.fc1, hidden), (mlp.fc2, width)
    dense = all(settings.is_dense(layer, outputs) for layer, outputs in layers)
    inputs = attention.proj.in_channels == mlp.fc1.in_channels == width and mlp.fc2.in_channels == hidden
    norms = all(norm.gamma.shape == norm.beta.shape == (width,) for norm in (block.norm1, block.norm2))
    heads = attention.num_heads * attention.head_dim == width
    parts = attention.proj_drop.parts == mlp.drop2.parts == 1 and mlp.drop1.parts * width == hidden
    gelu = type(mlp.act) is nn.GELU and mlp.act.approximate == "none"
    return dense and inputs and norms and heads and parts and gelu


def knows_encoded(model: vit.VisionTransformer) -> bool:
    return model.pos_drop.parts == 1 and all(map(knows_block, model.blocks))


# Costs: a step of PMT on an H100, ms in float32 / float16, without / with each row.
TABLE = {
    # Saves 79 / 67 ms, and 0.9 / 0.5 GiB, as norms are not kept.
    vit.Block.construct: Replacement(block, "PMT's kernels on an H100: 267 / 115 ms for 188 / 48", knows_block),
    # Recomputing blocks saves 7.0 / 3.5 GiB.
    vit.VisionTransformer.encoded: Replacement(
        encoded, "PMT: noise of 42 MB, drawn by 12 operators and read 72 times", knows_encoded
    ),
    Dropout.construct: Replacement(dropout),  # after the embedding
    vit.LayerNorm.construct: Replacement(layer_norm),  # the last
}
