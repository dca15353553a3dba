"""The methods that CPU kernels replace.

Kernels cover only configurations that these models use; operators compute all others. Hooks still run, except those of
cells that are part of their parent's kernel.
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.config.models import check_pooled
from ms_vireid.devices.replaceable import check_tables
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import agw, auxiliary_generator, layers, resnet, vit
from ms_vireid.models.noise import Noise, mask_numbers
from ms_vireid.optimizers import SGD, AdamW
from ms_vireid.optimizers.groups import GroupOptimizer
from ms_vireid.programs import reproducible, updates
from ms_vireid.programs.numba import optimizer
from ms_vireid.programs.numba.base import Compiled
from ms_vireid.programs.numba.convolution import Convolution, Winograd
from ms_vireid.programs.numba.feature_maps import Fork
from ms_vireid.programs.numba.generator import Depthwise, Pyramids
from ms_vireid.programs.numba.normalisation import BatchNorm
from ms_vireid.programs.numba.pooling import CubicGeM, MaxPool
from ms_vireid.programs.numba.transformer import GELU, Dense, Dropout, DropPath, LayerNorm
from ms_vireid.programs.numba.transformer import Attention as Heads

WINOGRAD = 64  # channels from which Winograd is faster, as measured


def gelu(self: nn.GELU, x: Tensor) -> Tensor:
    return GELU.apply(x) if self.approximate == "none" else nn.GELU.construct(self, x)


def layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    if (self.begin_norm_axis, self.begin_params_axis) != (-1, -1):
        return nn.LayerNorm.construct(self, x)
    return LayerNorm.apply(x, self.gamma, self.beta, self.epsilon)


def dense(self: nn.Dense, x: Tensor) -> Tensor:
    if not self.has_bias:
        return nn.Dense.construct(self, x)
    return Dense.apply(x, self.weight, self.bias)


def attention(self: vit.Attention, x: Tensor, noise: Noise | None) -> Tensor:
    return self.proj_drop(self.proj(Heads.apply(self.qkv(x), self.num_heads)), noise)


def dropout(self: layers.Dropout, x: Tensor, noise: Noise | None) -> Tensor:
    if not self.training or self.rate == 0.0:
        return x
    numbers = np.array(mask_numbers(self.layer, self.parts), np.int32)
    return Dropout.apply(x, noise[0], numbers, self.limit, self.scale)


def drop_path(self: layers.DropPath, x: Tensor, noise: Noise | None) -> Tensor:
    if not self.training or not self.changes:
        return x
    return DropPath.apply(x, noise[1][self.layer])


def gem(self: layers.GeM, x: Tensor) -> Tensor:
    if self.learned or self.power != 3.0:
        return reproducible.gem(self, x)
    return CubicGeM.apply(x, self.eps)


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    kernel, stride = self.kernel_size[0], self.stride[0]
    square = (self.kernel_size, self.stride) == ((kernel, kernel), (stride, stride))
    padded = self.pad_mode == "valid" or (self.pad_mode == "pad" and isinstance(self.padding, int))
    if not (square and padded and self.dilation == (1, 1) and self.group == 1):
        return nn.Conv2d.construct(self, x)
    border = 0 if self.pad_mode == "valid" else self.padding
    if (kernel, stride, border) == (3, 1, 1) and min(self.weight.shape[:2]) >= WINOGRAD and not self.has_bias:
        return Winograd.apply(x, self.weight)
    return Convolution.apply(x, self.weight, self.bias if self.has_bias else None, stride, border)


def batch_norm(self: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None = None, relu: bool = False) -> Tensor:
    """With what follows in a residual network: adding a shortcut, ReLU. A BNNeck's rows have MindSpore's operator."""
    if x.ndim == 2 or not isinstance(self.bn_train, ops.BatchNorm):  # the latter: statistics of several processes
        x = nn.BatchNorm2d.construct(self, x)
        x = x if shortcut is None else x + shortcut
        return ops.relu(x) if relu else x
    moving = self.moving_mean, self.moving_variance
    return BatchNorm.apply(x, self.gamma, self.beta, shortcut, moving, self.eps, self.momentum, self.training, relu)


def stages(self: resnet.ResNet, x: Tensor) -> Tensor:
    if self.has_stem:
        x = self.maxpool(batch_norm(self.bn1, self.conv1(x), relu=True))
    for block in self.blocks:
        x = block(x)
    return x


def bottleneck(self: resnet.Bottleneck, x: Tensor) -> Tensor:
    x, shortcut = Fork.apply(x, 2)
    if self.downsample is not None:
        shortcut = self.downsample(shortcut)
    x = batch_norm(self.bn1, self.conv1(x), relu=True)
    x = batch_norm(self.bn2, self.conv2(x), relu=True)
    return batch_norm(self.bn3, self.conv3(x), shortcut, relu=True)


def non_local(self: agw.NonLocal, x: Tensor) -> Tensor:
    batch, _, rows, columns = x.shape
    *branches, shortcut = Fork.apply(x, 4)
    maps = (layer(branch) for layer, branch in zip((self.g, self.theta, self.phi), branches, strict=True))
    g, theta, phi = (one.reshape(batch, self.width, rows * columns) for one in maps)  # [N, width, L] each
    y = g @ phi.swapaxes(1, 2) / (rows * columns) @ theta  # [N, width, L]
    return batch_norm(self.W[1], self.W[0](y.reshape(batch, self.width, rows, columns)), shortcut)


def max_pool(self: nn.MaxPool2d, x: Tensor) -> Tensor:
    if not self.use_pad or (self.kernel_size, self.stride, self.padding) != (3, 2, (0, 1, 1)) or self.return_indices:
        return nn.MaxPool2d.construct(self, x)
    return MaxPool.apply(x)


def intra_modality_learner(self: auxiliary_generator.IntraModalityLearner, x: Tensor) -> Tensor:
    x = Depthwise.apply(x, False, self.first.weight, self.second.weight)
    x = Convolution.apply(self.bn1(x), self.expand.weight, None, 1, 0)
    x = Depthwise.apply(x, True, self.spatial.weight)
    # The scale multiplies the weight, which is smaller than the map.
    return Convolution.apply(self.bn2(x), self.scale.reshape(-1, 1, 1, 1) * self.reduce.weight, None, 1, 0)


def cross_modality_learner(self: auxiliary_generator.CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    check_pooled(visible.shape[2], visible.shape[3], self.ratios)
    x = Pyramids.apply(2, visible, infrared, *(rebuild.weight for rebuild in self.transposed))
    return Convolution.apply(self.bn(x), self.scale.reshape(-1, 1, 1, 1) * self.fuse.weight, None, 1, 0)


def stage_loss(self: StageLoss, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
    """Values and gradients by one graph: a third of the time, and no leak (in PyNative 512 bytes for each number among
    the operands, 126 kB a step)."""
    count, graphs = len(outputs), vars(self).setdefault("_graphs", {})
    if count not in graphs:
        values_of, total_of = self.values, self.total

        def terms(labels, *outputs):
            values = values_of(outputs, labels)
            return total_of(values), *values

        graphs[count] = ms.jit(ms.value_and_grad(terms, tuple(range(1, 1 + count)), has_aux=True))
    return Compiled.apply(graphs[count], labels, *outputs)


# The slowdown of a full-size training step without each, as printed by `python parity/benchmark.py --only kernels` on
# two cores with AVX-512. Without the convolutions' kernels oneDNN's reference computes them (see
# `runtime.cap_convolutions`).
CELLS = {
    nn.GELU.construct: gelu,  # PMT 1.27
    nn.LayerNorm.construct: layer_norm,  # PMT 1.15
    nn.Dense.construct: dense,  # PMT 1.16
    vit.Attention.construct: attention,  # PMT 1.05
    layers.Dropout.construct: dropout,  # PMT 1.17
    layers.DropPath.construct: drop_path,  # PMT 1.09
    layers.GeM.construct: gem,  # AGW 1.04
    nn.Conv2d.construct: convolution,  # AGW 45
    resnet.ResNet.construct: stages,
    resnet.Bottleneck.construct: bottleneck,  # AGW 1.23
    agw.NonLocal.construct: non_local,  # AGW 1.11
    nn.BatchNorm2d.construct: batch_norm,  # AGW 1.90
    nn.MaxPool2d.construct: max_pool,  # AGW 1.13
    auxiliary_generator.IntraModalityLearner.construct: intra_modality_learner,  # MUN 2.95
    auxiliary_generator.CrossModalityLearner.construct: cross_modality_learner,  # MUN 7.85
}
OTHERS = {
    StageLoss.construct: stage_loss,
    AdamW.update: optimizer.adamw,  # PMT 1.04
    AdamW.scalars: updates.adamw_scalars,
    SGD.update: optimizer.sgd,  # AGW 1.15
    GroupOptimizer.clip: optimizer.clip,  # the demonstration keeps 30 kB a step less, and is some percent faster
}
TABLE = reproducible.TABLE | CELLS | OTHERS
check_tables("numba", [TABLE])
