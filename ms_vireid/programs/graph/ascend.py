"""Replacements of methods and functions in a graph on an Ascend.

CANN compiles launches "by name" at their first use.
"""

import mindspore as ms
from mindspore import Tensor, mint, nn, ops
from mindspore.ops import auto_generate

from ms_vireid.losses.stage import StageLoss
from ms_vireid.models.auxiliary_generator import ResidualDepthwise
from ms_vireid.models.mun import MUN, in_parts
from ms_vireid.programs import updates
from ms_vireid.programs.graph import common

_convolution = auto_generate.Conv2DExt()


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
    nn.GELU.construct: gelu,  # PMT: 1,293 launches for 1,137; peak 14.6 GiB for 10.9
    nn.LayerNorm.construct: layer_norm,  # PMT: 232 by name for 182
    nn.Dense.construct: dense,  # PMT: 1,183 launches for 1,137, 278 by name for 182
    nn.Conv2d.construct: convolution,  # AGW: 688 launches for 576, 303 by name for 43
    ResidualDepthwise.construct: residual_depthwise,  # MUN: 131 by name for 125
    nn.Conv2dTranspose.construct: transposed_convolution,  # MUN: 149 by name for 125
    nn.BatchNorm2d.construct: batch_norm,  # PMT: 186 by name for 182; AGW: 694 launches for 576, 279 by name for 43
    nn.MaxPool2d.construct: max_pool,  # AGW: 47 by name for 43, some of them by the slow AI CPU
    nn.AvgPool2d.construct: average_pool,  # MUN: 141 by name for 125
    MUN.features: features,
    StageLoss.construct: stage_loss,
}
