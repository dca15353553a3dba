"""Replacements of methods and functions in a graph on an Ascend.

CANN compiles launches "by name" at their first use.
"""

import math
from functools import cache

import mindspore as ms
from mindspore import Tensor, mint, nn, ops
from mindspore.ops import auto_generate

from ms_vireid.backends import updates
from ms_vireid.backends.graph import common
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import vit
from ms_vireid.models.auxiliary_generator import ResidualDepthwise
from ms_vireid.models.layers import Dropout, DropPath, LayerNorm
from ms_vireid.models.mun import MUN, in_parts
from ms_vireid.models.noise import Noise, draw_noise, mask_number, mask_numbers
from ms_vireid.replaceable import Replacement

_convolution = auto_generate.Conv2DExt()
_FUSED = 16  # channels of a head that fused attention takes, and their multiples
_AT_ONCE = 12  # masks of the noise's width, whose numbers take 4 bytes an element until they are compared
Masks = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # what dropouts keep: of activations as wide as the noise; wider
Masked = tuple[Masks, Tensor]  # what `encoded` gives its blocks in the place of `Noise`: masks, and drop paths' factors


def attention(self: vit.Attention, x: Tensor, noise: Noise | None) -> Tensor:
    """In half precision by CANN's fused attention, which keeps no scores, [N, heads, T, T], and has its softmax in
    float32."""
    if x.dtype == ms.float32 or self.head_dim % _FUSED or self.num_heads * self.head_dim != x.shape[-1]:
        return common.attention(self, x, noise)
    query, key, value = mint.split(self.qkv(x), x.shape[-1], -1)
    out = ops.flash_attention_score(query, key, value, self.num_heads, scalar_value=self.head_dim**-0.5)
    return self.proj_drop(self.proj(out), noise)


def block(self: vit.Block, x: Tensor, noise: Noise | None = None) -> Tensor:
    """With the first addition and the LayerNorm behind it as one operator, and both their gradients."""
    norm = self.norm2
    known, epsilon = _layer_norm_of(self, "norm2", x.shape[-1:], x.dtype)
    if not known:
        return vit.Block.construct(self, x, noise)
    branch = self.drop_path1(self.attn(self.norm1(x), noise), noise)
    normalised, _, _, x = ops.add_layer_norm(x, branch, norm.gamma, norm.beta, epsilon, True)
    return x + self.drop_path2(self.mlp(normalised, noise), noise)


def knows_noise(model: vit.VisionTransformer) -> bool:
    """Whether all dropouts drop at one rate, each by the mask of its layer, and only known cells take noise."""
    blocks, first = list(model.blocks), model.pos_drop
    kinds = {(type(block), type(block.attn), type(block.mlp)) for block in blocks}
    if kinds != {(vit.Block, vit.Attention, vit.Mlp)}:
        return False
    parts = blocks[0].mlp.drop1.parts
    drawn = {(layer, 1) for layer in range(1 + 2 * len(blocks))} | {(layer, parts) for layer in range(len(blocks))}
    dropouts = [cell for _, cell in model.cells_and_names() if isinstance(cell, Dropout) and cell.rate > 0.0]
    return all(
        type(cell) is Dropout
        and (cell.layer, cell.parts) in drawn
        and cell.limit == first.limit
        and cell.number == mask_number(cell.layer)
        for cell in dropouts
    )


def encoded(self: vit.VisionTransformer, x: Tensor, key: Tensor | None) -> Tensor:
    """Draws the masks of several layers at once; where blocks are recomputed, their layers do."""
    if not (self.training and self.stochastic) or self.recompute_blocks or self.pos_drop.rate == 0.0:
        return vit.VisionTransformer.encoded(self, x, key)
    noise, factors = draw_noise(key, x.shape, self.path_rates, self.pos_drop.rate, self.shard)
    layers, parts, limit = len(self.blocks), self.blocks[0].mlp.drop1.parts, self.pos_drop.limit
    masks = (_kept(noise, limit, 1 + 2 * layers, 1), _kept(noise, limit, layers, parts)), factors.astype(x.dtype)
    x = self.pos_drop(x, masks)
    for block in self.blocks:
        x = block(x, masks)
    return x


def _kept(noise: Tensor, limit: int, layers: int, parts: int) -> tuple[Tensor, ...]:
    """What the dropouts of layers 0, 1, ... keep, bool [N, T, parts * C] each."""
    (samples, tokens, width), kept, step = noise.shape, (), max(1, _AT_ONCE // parts)
    positions = noise.reshape(1, samples, tokens, 1, width)
    for first in range(0, layers, step):
        numbers = positions * _numbers(first, min(first + step, layers), parts)
        # Right before or behind a split, reshaping copies.
        kept += mint.split(numbers.reshape(-1, tokens, parts * width) >= limit, samples)
    return kept


@ops.constexpr
@cache
def _numbers(first: int, end: int, parts: int) -> Tensor:
    """Of the masks of layers: int32 [layers, 1, 1, parts, 1]."""
    numbers = [mask_numbers(layer, parts) for layer in range(first, end)]
    return Tensor(numbers, ms.int32).reshape(end - first, 1, 1, parts, 1)


def _has_masks(noise: Noise | Masked) -> bool:
    return isinstance(noise[0], tuple)


def dropout(self: Dropout, x: Tensor, noise: Noise | Masked | None) -> Tensor:
    """By a product with what is kept: `masked_fill` copies before it fills."""
    if not self.training or self.rate == 0.0:
        return x
    if _has_masks(noise):
        kept = noise[0][int(self.parts > 1)][self.layer]
    else:
        kept = (self.numbers(noise[0]) >= self.limit).reshape(x.shape)
    x = x * kept
    return x * self.scale if self.scale != 1.0 else x


def drop_path(self: DropPath, x: Tensor, noise: Noise | Masked | None) -> Tensor:
    """All layers take their factors from one operator."""
    if not self.training or not self.changes:
        return x
    return x * ops.unstack(noise[1])[self.layer].reshape((-1,) + (1,) * (x.ndim - 1))


# MindSpore's own layers, also in a model of somebody's own: their operators' settings, as what a layer's attributes say
# since has no effect. `reuse_result`: they are read again by the next graph. Other settings have MindSpore's operators.
_FLOATS = (ms.float32, ms.float16, ms.bfloat16)


def gelu(self: nn.GELU, x: Tensor) -> Tensor:
    if self.approximate != "none" or x.dtype not in _FLOATS:
        return nn.GELU.construct(self, x)
    return mint.nn.functional.gelu(x)


def layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    known, epsilon = _layer_norm_of(self, "", x.shape[-1:], x.dtype)
    if not known:
        return nn.LayerNorm.construct(self, x)
    return mint.nn.functional.layer_norm(x, self.gamma.shape, self.gamma, self.beta, epsilon)


def layer_norm_in_float32(self: LayerNorm, x: Tensor) -> Tensor:
    known, epsilon = _layer_norm_of(self, "", x.shape[-1:], x.dtype)
    if not known:
        return LayerNorm.construct(self, x)
    return mint.nn.functional.layer_norm(x, self.gamma.shape, self.gamma, self.beta, epsilon)


@ops.constexpr(reuse_result=False)
def _layer_norm_of(cell: nn.Cell, part: str, shape: tuple[int, ...], dtype: ms.Type) -> tuple[bool, float]:
    """Whether a cell, or a part of it, normalises over the last axis, of this shape, and its epsilon."""
    cell = getattr(cell, part) if part else cell
    construct = type(cell).construct
    if construct not in (nn.LayerNorm.construct, LayerNorm.construct):
        return False, 0.0
    fitting = all((weight.shape, weight.dtype) == (shape, dtype) for weight in (cell.gamma, cell.beta))
    known, operator = fitting and dtype in _FLOATS, cell.layer_norm
    if construct is LayerNorm.construct:
        return known, cell.epsilon
    last = type(operator) is ops.LayerNorm and operator.begin_norm_axis == operator.begin_params_axis == -1
    return known and last, operator.epsilon if last else 0.0


def dense(self: nn.Dense, x: Tensor) -> Tensor:
    if not _knows_dense(self, x.shape, x.dtype):
        return nn.Dense.construct(self, x)
    return mint.nn.functional.linear(x, self.weight, self.bias if self.has_bias else None)


@ops.constexpr(reuse_result=False)
def _knows_dense(cell: nn.Dense, shape: tuple[int, ...], dtype: ms.Type) -> bool:
    product, weights = cell.matmul, [cell.weight, *([cell.bias] if cell.has_bias else [])]
    plain = not cell.activation_flag and (not cell.has_bias or type(cell.bias_add) is ops.BiasAdd)
    plain = plain and type(product) is ops.MatMul and product.transpose_b and not product.transpose_a
    fitting = len(shape) > 1 and shape[-1:] == cell.weight.shape[1:]
    fitting = fitting and (not cell.has_bias or cell.bias.shape == cell.weight.shape[:1])
    return plain and fitting and dtype in _FLOATS and all(weight.dtype == dtype for weight in weights)


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    """`Cell.recompute` does not recompute `mint.nn.functional.conv2d`, but does its operator."""
    known, stride, padding, dilation, groups = _convolution_of(self, x.shape, x.dtype)
    if not known:
        return nn.Conv2d.construct(self, x)
    return _convolution(x, self.weight, self.bias if self.has_bias else None, stride, padding, dilation, groups)


@ops.constexpr(reuse_result=False)
def _convolution_of(cell: nn.Conv2d, shape: tuple[int, ...], dtype: ms.Type) -> tuple:
    """Whether opposite borders are alike, strides, borders and dilations of both sides, and the number of groups."""
    unknown = False, (1, 1), (0, 0), (1, 1), 1
    if type(cell.conv2d) is not ops.Conv2D or len(shape) != 4 or dtype not in _FLOATS:
        return unknown
    of, weight = cell.conv2d.attrs, cell.weight
    (top, bottom, left, right), stride, dilation, groups = of["pad"], of["stride"][2:], of["dilation"][2:], of["groups"]
    known = of["pad_mode"] in ("pad", "valid") and (top, left) == (bottom, right)
    kernel = of["kernel_size"] if isinstance(of["kernel_size"], tuple) else (of["kernel_size"],) * 2
    known = known and weight.shape == (of["out_channel"], shape[1] // groups, *kernel) and weight.dtype == dtype
    if cell.has_bias:
        known = known and type(cell.bias_add) is ops.BiasAdd
        known = known and (cell.bias.shape, cell.bias.dtype) == ((of["out_channel"],), dtype)
    sides = zip(shape[2:], (top, left), kernel, dilation, strict=True)
    if not known or any(side + 2 * border <= spread * (width - 1) for side, border, width, spread in sides):
        return unknown
    return True, stride, (top, left), dilation, groups


def residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    return convolution(self, ops.relu(x)) + x


def transposed_convolution(self: nn.Conv2dTranspose, x: Tensor) -> Tensor:
    if not _knows_transposed(self, x.shape, x.dtype):
        return nn.Conv2dTranspose.construct(self, x)
    return mint.nn.functional.conv_transpose2d(x, self.weight, None, self.stride)


@ops.constexpr(reuse_result=False)
def _knows_transposed(cell: nn.Conv2dTranspose, shape: tuple[int, ...], dtype: ms.Type) -> bool:
    """Whether each pixel becomes a patch, without bias."""
    operator, weight, ones = cell.conv2d_transpose, cell.weight, (1, 1)
    if type(operator) is not ops.Conv2DTranspose or cell.has_bias or len(shape) != 4 or dtype not in _FLOATS:
        return False
    of, sides = operator.attrs, weight.shape[2:]
    patches = (of["pad_mode"], of["pad"], of["groups"]) == ("VALID", (0,) * 4, 1)
    patches = patches and (of["stride"], of["dilation"]) == (ones + sides, ones + ones) and cell.is_valid
    patches = patches and (cell.kernel_size, cell.stride, cell.dilation) == (sides, sides, ones)
    fitting = weight.shape[:2] == (shape[1], cell.out_channels) and of["out_channel"] == shape[1]
    return patches and fitting and weight.dtype == dtype and cell.output_padding in (0, (0, 0))


def batch_norm(self: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    known, of_batch, momentum, epsilon = _batch_norm_of(self, x.shape, x.dtype)
    if not known:
        return nn.BatchNorm2d.construct(self, x)
    parameters = self.moving_mean, self.moving_variance, self.gamma, self.beta
    return mint.nn.functional.batch_norm(x, *parameters, of_batch, momentum, epsilon)


@ops.constexpr(reuse_result=False)
def _batch_norm_of(cell: nn.Cell, shape: tuple[int, ...], dtype: ms.Type) -> tuple[bool, bool, float, float]:
    """Whether rows or maps are normalised, whether by the batch's statistics, the weight of new ones, and epsilon."""
    of_batch = bool(cell.training if cell.use_batch_statistics is None else cell.use_batch_statistics)
    operator = cell.bn_train if of_batch else cell.bn_infer
    if type(operator) is not ops.BatchNorm:  # another has statistics of several processes
        return False, False, 0.0, 0.0
    kinds = {nn.BatchNorm1d._check_input_dim: (2,), nn.BatchNorm2d._check_input_dim: (4,)}
    known = operator.is_training == of_batch and len(shape) in kinds.get(type(cell)._check_input_dim, ())
    weights = cell.gamma, cell.beta, cell.moving_mean, cell.moving_variance
    fitting = all((weight.shape, weight.dtype) == (shape[1:2], ms.float32) for weight in weights)
    several = not of_batch or math.prod(shape) > shape[1]  # the variance of one number is no number
    return known and fitting and several and dtype in _FLOATS, of_batch, operator.momentum, operator.epsilon


def max_pool(self: nn.MaxPool2d, x: Tensor) -> Tensor:
    known, kernel, stride, padding = _max_pool_of(self, x.shape, x.dtype)
    if not known:
        return nn.MaxPool2d.construct(self, x)
    maps = x.astype(ms.float32) if x.dtype == ms.bfloat16 else x  # MindSpore refuses bfloat16
    return mint.nn.functional.max_pool2d(maps, kernel, stride, padding).astype(x.dtype)


@ops.constexpr(reuse_result=False)
def _max_pool_of(cell: nn.MaxPool2d, shape: tuple[int, ...], dtype: ms.Type) -> tuple:
    """Whether padded windows give values alone; their sides, strides and borders."""
    unknown = False, (1, 1), (1, 1), (0, 0)
    if not cell.use_pad or cell.return_indices or type(cell.max_pool) is not ops.MaxPool3DWithArgmax:
        return unknown
    of = cell.max_pool.attrs
    kernel, stride, padding = (of[name][1:] for name in ("ksize", "strides", "pads"))
    known = of["dilation"] == (1, 1, 1) and not of["ceil_mode"] and len(shape) == 4 and dtype in _FLOATS
    sides = zip(shape[2:], kernel, padding, strict=True)
    if not known or any(2 * border > width or side + 2 * border < width for side, width, border in sides):
        return unknown
    return True, kernel, stride, padding


def average_pool(self: nn.AvgPool2d, x: Tensor) -> Tensor:
    known, kernel, stride = _average_pool_of(self, x.shape, x.dtype)
    if not known:
        return nn.AvgPool2d.construct(self, x)
    return mint.nn.functional.avg_pool2d(x, kernel, stride)


@ops.constexpr(reuse_result=False)
def _average_pool_of(cell: nn.AvgPool2d, shape: tuple[int, ...], dtype: ms.Type) -> tuple:
    """Whether windows lie within the maps; their sides and strides."""
    operator = cell.avg_pool
    if cell.is_expand or type(operator) is not ops.AvgPool or len(shape) != 4 or dtype not in _FLOATS:
        return False, (1, 1), (1, 1)
    within = operator.pad_mode == _VALID and operator.data_format == _MAPS_FIRST
    within = within and all(side >= width for side, width in zip(shape[2:], operator.kernel_size, strict=True))
    return within, operator.kernel_size, operator.strides


_VALID, _MAPS_FIRST = ops.AvgPool().pad_mode, ops.AvgPool().data_format


def features(self: MUN, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """As `MUN.features`, with each modality depending on the one before: otherwise a graph may update the running
    averages in another order."""
    if not self.separate:
        return MUN.features(self, maps)
    visible = self.parts - 1
    modalities = (maps[0] if visible == 1 else ops.cat(maps[:visible]), *maps[visible:])
    pooled, normalised = (), ()
    for modality in modalities:
        if normalised:
            modality = ops.depend(modality, normalised[-1])
        features = self.pool(self.shared(modality))
        pooled += in_parts(features, maps[0].shape[0])
        normalised += in_parts(self.bottleneck(features), maps[0].shape[0])
    return ops.cat(pooled), ops.cat(normalised)


def stage_loss(self: StageLoss, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
    """With a dependency on all outputs: otherwise a graph may prune a BNNeck that no term needs, and its running
    averages."""
    total, *values = StageLoss.construct(self, outputs, labels)
    return (ops.depend(total, outputs), *values)


# Costs: launches of a step without / with each row, "by name" those among them that CANN compiles.
TABLE = {
    **updates.ASCEND,
    **common.TABLE,
    vit.Attention.construct: Replacement(attention, "PMT amp: 1,055 launches for 827; peak 7.2 GiB for 5.8"),
    vit.Block.construct: Replacement(block, "PMT: 1,000 launches for 976, amp: 852 for 827"),
    vit.VisionTransformer.encoded: Replacement(encoded, "PMT: 971 launches for 908, amp: 822 for 759", knows_noise),
    Dropout.construct: Replacement(dropout, "PMT: 1,050 launches for 976, amp: 901 for 827"),
    DropPath.construct: Replacement(drop_path, "PMT: 999 launches for 976, 131 by name for 108"),
    nn.GELU.construct: Replacement(gelu, "PMT: 1,132 launches for 976; peak 14.6 GiB for 10.9"),
    LayerNorm.construct: Replacement(layer_norm_in_float32, "PMT: 134 by name for 108"),
    nn.LayerNorm.construct: Replacement(layer_norm),
    nn.Dense.construct: Replacement(dense, "PMT: 1,022 launches for 976, 204 by name for 108"),
    nn.Conv2d.construct: Replacement(convolution, "AGW: 688 launches for 576, 303 by name for 43"),
    ResidualDepthwise.construct: Replacement(residual_depthwise, "MUN: 131 by name for 125"),
    nn.Conv2dTranspose.construct: Replacement(transposed_convolution, "MUN: 149 by name for 125"),
    nn.BatchNorm2d.construct: Replacement(batch_norm, "AGW: 694 launches for 576, 279 by name for 43"),
    nn.MaxPool2d.construct: Replacement(max_pool, "AGW: 47 by name for 43, some of them by the slow AI CPU"),
    nn.AvgPool2d.construct: Replacement(average_pool, "MUN: 141 by name for 125"),
    MUN.features: Replacement(features),
    StageLoss.construct: Replacement(stage_loss),
}
