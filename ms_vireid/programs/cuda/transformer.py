"""A ViT's block by the CUDA kernels, forward and backward as one cell."""

import struct
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.models import vit
from ms_vireid.models.layers import Dropout, DropPath
from ms_vireid.models.noise import Noise, draw_starts, mask_numbers
from ms_vireid.programs.cuda import build
from ms_vireid.programs.cuda.operators import floats, operator, same, with_sums, with_sums_types
from ms_vireid.programs.graph.common import product, product_transposed


def _norm_gradient(gradient, *_):
    x, parts, sums = with_sums(gradient)
    return x, (2, *parts), sums, sums


def _norm_and_its_gradient(gradient, *_):
    return gradient, *_norm_gradient(gradient)


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


# Tensors of x's type and statistics in float32; transformer.c says what each operator takes and gives.
_layer_norm = operator("layer_norm", lambda x, *_: (x, x[:-1], x[:-1]), lambda x, *_: (x, ms.float32, ms.float32))
_layer_norm_gradient = operator("layer_norm_gradient", _norm_gradient, lambda x, *_: (x, ms.float32, x, x))
_branch_norm_gradient = operator("branch_norm_gradient", _norm_and_its_gradient, lambda x, *_: (x, x, ms.float32, x, x))
_dropout = operator("dropout", same, same)
_gelu = operator("gelu", same, same)
_gelu_gradient = operator("gelu_gradient", lambda gradient, *_: with_sums(gradient), with_sums_types)
_residual = operator("residual", same, same)
_residual_gradient = operator("residual_gradient", lambda gradient, *_: with_sums(gradient), with_sums_types)
_split_heads = operator("split_heads", lambda x, _, places: (_split(x, places, 3),) * 3, lambda x, *_: (x, x, x))
_split_heads_gradient = operator("split_heads_gradient", _joined_with_sums, with_sums_types)
_merge_heads = operator("merge_heads", _merged, same)
_merge_heads_gradient = operator("merge_heads_gradient", _split, same)
_softmax = operator("softmax", same, same)
_softmax_gradient = operator("softmax_gradient", same, same)
_matmul, _matmul_transposed, _transposed_matmul = ops.MatMul(), ops.MatMul(False, True), ops.MatMul(True)
_transposed_batches = ops.BatchMatMul(True)

# Tokens are padded to a multiple. On an H100 in float16 cuBLAS computes attention's products of 216 tokens in a quarter
# of the time of 211 (0.058 for 0.201 ms, 0.044 for 0.183, 0.044 for 0.170); in float32 those of 212 and 216 are slower.
PADDED_TO = {ms.float16: 8, ms.float32: 1}
_WIDEST, _MOST_TOKENS = build.constant("WIDEST"), build.constant("MOST_TOKENS")


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
@cache
def _ones(dtype: ms.Type) -> Tensor:
    """[1], in place of drop path's factors."""
    return Tensor(np.ones(1), dtype)


@ops.constexpr
def _padded(tokens: int, dtype: ms.Type) -> int:
    return _multiple(tokens, PADDED_TO[dtype])


def _multiple(count: int, of: int) -> int:
    return -(-count // of) * of


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


class LayerNorm(nn.Cell):
    """Normalises x [..., C] over C, with gamma and beta [C]. eps: float32 [1]."""

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the result, and mean and 1 / standard deviation of the rows."""
        return _layer_norm(x, gamma, beta, eps)

    def bprop(self, x, gamma, beta, eps, out, gradients):
        grad_x, _, grad_gamma, grad_beta = _layer_norm_gradient(gradients[0], x, gamma, out[1], out[2])
        return grad_x, grad_gamma, grad_beta, ops.zeros_like(eps)


class Dropped(nn.Cell):
    """Dropout of x [..., C]. positions and mask: as in `Block`."""

    def construct(self, x: Tensor, positions: tuple[Tensor, Tensor], mask: tuple[Tensor, Tensor]) -> Tensor:
        return _dropout(x, positions[0], positions[1], mask[0], mask[1])

    def bprop(self, x, positions, mask, _out, gradient):
        grad_x = _dropout(gradient, positions[0], positions[1], mask[0], mask[1])
        return grad_x, _no_gradients(positions), _no_gradients(mask)


class Block(nn.Cell):
    """x + attention(norm(x)), then x + MLP(norm(x)), of x [N, T, D]; and the gradients.

    positions: what the noise starts from, or the noise and anything. masks: multipliers and layer of the dropouts after
    the projection and both layers of the MLP. factors: [N] for the two branches. places, tokens: int32 [heads, T'] and
    [T], of any values. eps: float32 [1].

    recomputes: keep x alone for the gradients.
    """

    def __init__(self, recomputes: bool):
        super().__init__()
        self.recomputes = recomputes

    def construct(self, x, weights, positions, masks, factors, places, tokens, eps):
        """Returns the output, and what the gradients need."""
        outputs = _forward(x, weights, positions, masks, factors, places, tokens, eps)
        return outputs[:1] if self.recomputes else outputs

    def bprop(self, x, weights, positions, masks, factors, places, tokens, eps, out, gradients):
        gradient = gradients[0]
        if self.recomputes:
            x = ops.depend(x, gradient)  # begins when the gradient is there, not right after the forward pass
            out = _forward(x, weights, positions, masks, factors, places, tokens, eps)
        grad_x, grad_weights = _backward(gradient, x, weights, positions, masks, factors, places, tokens, out)
        constants = _no_gradients(positions), _no_gradients(masks), _no_gradients(factors)
        return grad_x, grad_weights, *constants, ops.zeros_like(places), ops.zeros_like(tokens), ops.zeros_like(eps)


def _no_gradients(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    zeros = ()
    for tensor in tensors:
        zeros += (ops.zeros_like(tensor),)
    return zeros


def _forward(x, weights, positions, masks, factors, places, tokens, eps):
    gamma1, beta1, qkv, qkv_bias, proj, proj_bias, gamma2, beta2, fc1, fc1_bias, fc2, fc2_bias = weights
    proj_drop, drop1, drop2 = positions + masks[:2], positions + masks[2:4], positions + masks[4:]

    norm1, mean1, scale1 = _layer_norm(x, gamma1, beta1, eps)
    query, key, value = _split_heads(_product(norm1, qkv), qkv_bias, places)  # [N, heads, T', head_dim]
    attention = _softmax(product_transposed(query, key), tokens)  # [N, heads, T', T']
    merged = _merge_heads(product(attention, value), tokens)
    branch = _product(merged, proj)
    middle = _residual(x, branch, proj_bias, factors[0], *proj_drop)

    norm2, mean2, scale2 = _layer_norm(middle, gamma2, beta2, eps)
    hidden = _product(norm2, fc1)
    activated = _gelu(hidden, fc1_bias, *drop1)
    branch = _product(activated, fc2)
    out = _residual(middle, branch, fc2_bias, factors[1], *drop2)
    return out, mean1, scale1, query, key, value, attention, merged, middle, mean2, scale2, hidden, activated


def _backward(gradient, x, weights, positions, masks, factors, places, tokens, kept):
    gamma1, beta1, qkv, _, proj, _, gamma2, beta2, fc1, fc1_bias, fc2, _ = weights
    proj_drop, drop1, drop2 = positions + masks[:2], positions + masks[2:4], positions + masks[4:]
    _, mean1, scale1, query, key, value, attention, merged, middle, mean2, scale2, hidden, activated = kept

    grad_branch, _, grad_fc2_bias = _residual_gradient(gradient, factors[1], *drop2)
    grad_fc2 = _of_weight(grad_branch, activated)
    grad_activated = _of_input(grad_branch, fc2)
    grad_hidden, _, grad_fc1_bias = _gelu_gradient(grad_activated, hidden, fc1_bias, *drop1)
    grad_norm2 = _of_input(grad_hidden, fc1)
    grad_middle, norm2, _, grad_gamma2, grad_beta2 = _branch_norm_gradient(
        grad_norm2, middle, gamma2, mean2, scale2, beta2, gradient
    )
    grad_fc1 = _of_weight(grad_hidden, norm2)

    grad_branch, _, grad_proj_bias = _residual_gradient(grad_middle, factors[0], *proj_drop)
    grad_proj = _of_weight(grad_branch, merged)
    grad_mixed = _merge_heads_gradient(_of_input(grad_branch, proj), places)
    grad_value = _transposed_batches(attention, grad_mixed)
    grad_attention = product_transposed(grad_mixed, value)
    grad_scores = _softmax_gradient(grad_attention, attention, tokens)
    grad_query, grad_key = product(grad_scores, key), _transposed_batches(grad_scores, query)
    grad_joined, _, grad_qkv_bias = _split_heads_gradient(grad_query, grad_key, grad_value, tokens)
    grad_norm1 = _of_input(grad_joined, qkv)
    grad_x, norm1, _, grad_gamma1, grad_beta1 = _branch_norm_gradient(
        grad_norm1, x, gamma1, mean1, scale1, beta1, grad_middle
    )
    grad_qkv = _of_weight(grad_joined, norm1)

    grad_attention_weights = grad_gamma1, grad_beta1, grad_qkv, grad_qkv_bias, grad_proj, grad_proj_bias
    grad_mlp_weights = grad_gamma2, grad_beta2, grad_fc1, grad_fc1_bias, grad_fc2, grad_fc2_bias
    return grad_x, grad_attention_weights + grad_mlp_weights


_norm, _dropped, _block, _recomputed_block = LayerNorm(), Dropped(), Block(recomputes=False), Block(recomputes=True)


def layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    if len(self.normalized_shape) > 1 or self.normalized_shape[0] > _WIDEST:
        return nn.LayerNorm.construct(self, x)
    return _norm(x, self.gamma.astype(x.dtype), self.beta.astype(x.dtype), floats(self.epsilon))[0]


def dropout(self: Dropout, x: Tensor, noise: Noise | None) -> Tensor:
    if not self.training or self.rate == 0.0:
        return x
    return _dropped(x, _positions(noise), _mask(self, self.scale))


def noise_of(
    self: vit.VisionTransformer, key: Tensor, shape: tuple[int, int, int]
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """What the noise starts from, which the kernels hash where they need it, and the factors."""
    rows, columns, factors = draw_starts(key, shape, self.path_rates, self.pos_drop.rate, self.shard)
    return (rows, columns), factors


def _positions(noise: Noise | tuple[tuple[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    return noise[0] if isinstance(noise[0], tuple) else (noise[0], _zeros(1))


def _mask(dropout: Dropout, scale: float) -> tuple[Tensor, Tensor]:
    return _numbers(dropout.layer, dropout.parts), _layer(dropout.limit, scale)


def _factors(path: DropPath, x: Tensor, noise: Noise) -> Tensor:
    return noise[1][path.layer] if path.changes else _ones(x.dtype)


def _computed(self: vit.Block, cell: Block, x: Tensor, noise: Noise | None) -> Tensor:
    attention, mlp = self.attn, self.mlp
    weights = (
        *(self.norm1.gamma, self.norm1.beta, attention.qkv.weight, attention.qkv.bias),
        *(attention.proj.weight, attention.proj.bias, self.norm2.gamma, self.norm2.beta),
        *(mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias),
    )
    if noise is None:
        positions, masks, factors = (_zeros(1),) * 2, (_zeros(1),) * 6, (_ones(x.dtype),) * 2
    else:
        positions = _positions(noise)
        masks = _mask(attention.proj_drop, 1.0) + _mask(mlp.drop1, mlp.drop1.scale) + _mask(mlp.drop2, 1.0)
        factors = _factors(self.drop_path1, x, noise), _factors(self.drop_path2, x, noise)
    places, tokens = _zeros(attention.num_heads, _padded(x.shape[1], x.dtype)), _zeros(x.shape[1])
    return cell(x, weights, positions, masks, factors, places, tokens, floats(vit.LAYER_NORM_EPS))[0]


def block(self: vit.Block, x: Tensor, noise: Noise | None = None) -> Tensor:
    return _computed(self, _block, x, noise)


def recomputed_block(self: vit.VisionTransformer, block: vit.Block, x: Tensor, noise: Noise | None) -> Tensor:
    return _computed(block, _recomputed_block, x, noise)


def fits(model: nn.Cell) -> bool:
    """Whether rows of all its ViTs fit into a warp's registers."""
    networks = [cell for _, cell in model.cells_and_names() if isinstance(cell, vit.VisionTransformer)]
    most = max(PADDED_TO.values())
    return all(each.embed_dim <= _WIDEST and _multiple(each.tokens, most) <= _MOST_TOKENS for each in networks)


# Kernels of a step of PMT, ms in float32 / float16 on an H100, without / with each row.
TABLE = {
    # Measured with kernels between its products: 267 / 115 for 188 / 48. Since then, measured alone: LayerNorms within
    # it and sums of gradients 3.1 / 1.8 for 6.7 / 5.3, softmax 3.0 / 2.0 for 2.8 / 1.7 with padded tokens, with which
    # attention's products in float16 take 4.3 ms instead of 9.7. Norms are not kept: 0.9 / 0.5 GiB less.
    vit.Block.construct: block,
    # 9.3 / 5.3 GiB for 2.3 / 1.8, and predicted 185 / 28 ms for 229 / 35.
    vit.VisionTransformer.recomputed_block: recomputed_block,
    # Noise of 42 MB, drawn by 12 operators and read 72 times, predicted: 3.1 / 3.1 for 0.1 / 0.1.
    vit.VisionTransformer.noise_of: noise_of,
    Dropout.construct: dropout,  # after the embedding; it must know what the noise starts from. 0.5 / 0.4 for 0.1 / 0.0
    nn.LayerNorm.construct: layer_norm,  # the last; the block has its own. 0.2 / 0.2 for 0.1 / 0.1
}
