"""Replacements of methods and functions in a graph on an Ascend.

CANN compiles launches "by name" at their first use.
"""

from functools import cache

import mindspore as ms
from mindspore import Tensor, mint, nn, ops
from mindspore.ops import auto_generate

from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import vit
from ms_vireid.models.auxiliary_generator import ResidualDepthwise
from ms_vireid.models.layers import Dropout, DropPath
from ms_vireid.models.mun import MUN, in_parts
from ms_vireid.models.noise import Noise, draw_noise, mask_numbers
from ms_vireid.programs import updates
from ms_vireid.programs.graph import common

_convolution = auto_generate.Conv2DExt()
_FUSED = 16  # channels of a head that fused attention takes, and their multiples
_AT_ONCE = 12  # masks of the noise's width, whose numbers take 4 bytes an element until they are compared
Masks = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # what dropouts keep: of activations as wide as the noise; wider


def attention(self: vit.Attention, x: Tensor, noise: Noise | None) -> Tensor:
    """In half precision by CANN's fused attention, which keeps no scores, [N, heads, T, T], and has its softmax in
    float32."""
    if x.dtype == ms.float32 or self.head_dim % _FUSED:
        return common.attention(self, x, noise)
    query, key, value = mint.split(self.qkv(x), x.shape[-1], -1)
    out = ops.flash_attention_score(query, key, value, self.num_heads, scalar_value=self.head_dim**-0.5)
    return self.proj_drop(self.proj(out), noise)


def block(self: vit.Block, x: Tensor, noise: Noise | None = None) -> Tensor:
    """With the first addition and the LayerNorm behind it as one operator, and both their gradients."""
    branch = self.drop_path1(self.attn(self.norm1(x), noise), noise)
    norm = self.norm2
    normalised, _, _, x = ops.add_layer_norm(x, branch, norm.gamma, norm.beta, norm.epsilon, True)
    return x + self.drop_path2(self.mlp(normalised, noise), noise)


def noise_of(self: vit.VisionTransformer, key: Tensor, shape: tuple[int, int, int]) -> Noise | tuple[Masks, Tensor]:
    """Draws the masks of several layers at once; where blocks are recomputed, their layers do."""
    noise, factors = draw_noise(key, shape, self.path_rates, self.pos_drop.rate, self.shard)
    if self.recompute_blocks or self.pos_drop.rate == 0.0:
        return noise, factors
    layers, parts, limit = len(self.blocks), self.blocks[0].mlp.drop1.parts, self.pos_drop.limit
    return (_kept(noise, limit, 1 + 2 * layers, 1), _kept(noise, limit, layers, parts)), factors


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


def dropout(self: Dropout, x: Tensor, noise: Noise | tuple[Masks, Tensor] | None) -> Tensor:
    """By a product with what is kept: `masked_fill` copies before it fills."""
    if not self.training or self.rate == 0.0:
        return x
    if isinstance(noise[0], tuple):
        kept = noise[0][int(self.parts > 1)][self.layer]
    else:
        kept = (self.numbers(noise[0]) >= self.limit).reshape(x.shape)
    x = x * kept
    return x * self.scale if self.scale != 1.0 else x


def drop_path(self: DropPath, x: Tensor, noise: Noise | None) -> Tensor:
    """All layers take their factors from one operator."""
    if not self.training or not self.changes:
        return x
    return x * ops.unstack(noise[1])[self.layer].reshape((-1,) + (1,) * (x.ndim - 1))


def gelu(self: nn.GELU, x: Tensor) -> Tensor:
    return mint.nn.functional.gelu(x)


def layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    return mint.nn.functional.layer_norm(x, self.normalized_shape, self.gamma, self.beta, self.epsilon)


def dense(self: nn.Dense, x: Tensor) -> Tensor:
    return mint.nn.functional.linear(x, self.weight, self.bias)


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    """`Cell.recompute` does not recompute `mint.nn.functional.conv2d`, but does its operator."""
    padding = (0, 0) if self.pad_mode == "valid" else (self.padding, self.padding)
    return _convolution(x, self.weight, self.bias, self.stride, padding, self.dilation, self.group)


def residual_depthwise(self: ResidualDepthwise, x: Tensor) -> Tensor:
    return convolution(self, ops.relu(x)) + x


def transposed_convolution(self: nn.Conv2dTranspose, x: Tensor) -> Tensor:
    return mint.nn.functional.conv_transpose2d(x, self.weight, self.bias, self.stride)


def batch_norm(self: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    if not isinstance(self.bn_train, ops.BatchNorm):  # statistics of several processes
        return nn.BatchNorm2d.construct(self, x)
    parameters = self.moving_mean, self.moving_variance, self.gamma, self.beta
    return mint.nn.functional.batch_norm(x, *parameters, self.training, self.momentum, self.eps)


def max_pool(self: nn.MaxPool2d, x: Tensor) -> Tensor:
    maps = x.astype(ms.float32) if x.dtype == ms.bfloat16 else x  # MindSpore refuses bfloat16
    return mint.nn.functional.max_pool2d(maps, self.kernel_size, self.stride, self.padding[1:]).astype(x.dtype)


def average_pool(self: nn.AvgPool2d, x: Tensor) -> Tensor:
    return mint.nn.functional.avg_pool2d(x, self.kernel_size, self.stride)


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
    values = self.values(outputs, labels)
    return (ops.depend(self.total(values), outputs), *values)


# Cost of a step without / with each row.
TABLE = {
    **updates.ASCEND,
    **common.TABLE,
    vit.Attention.construct: attention,  # PMT amp: 1,055 launches for 827; peak 7.2 GiB for 5.8
    vit.Block.construct: block,  # PMT: 1,000 launches for 976, amp: 852 for 827
    vit.VisionTransformer.noise_of: noise_of,  # PMT: 971 launches for 908, amp: 822 for 759
    Dropout.construct: dropout,  # PMT: 1,050 launches for 976, amp: 901 for 827
    DropPath.construct: drop_path,  # PMT: 999 launches for 976, 131 by name for 108
    nn.GELU.construct: gelu,  # PMT: 1,132 launches for 976; peak 14.6 GiB for 10.9
    nn.LayerNorm.construct: layer_norm,  # PMT: 134 by name for 108
    nn.Dense.construct: dense,  # PMT: 1,022 launches for 976, 204 by name for 108
    nn.Conv2d.construct: convolution,  # AGW: 688 launches for 576, 303 by name for 43
    ResidualDepthwise.construct: residual_depthwise,  # MUN: 131 by name for 125
    nn.Conv2dTranspose.construct: transposed_convolution,  # MUN: 149 by name for 125
    nn.BatchNorm2d.construct: batch_norm,  # PMT: 112 by name for 108; AGW: 694 launches for 576, 279 by name for 43
    nn.MaxPool2d.construct: max_pool,  # AGW: 47 by name for 43, some of them by the slow AI CPU
    nn.AvgPool2d.construct: average_pool,  # MUN: 141 by name for 125
    MUN.features: features,
    StageLoss.construct: stage_loss,
}
