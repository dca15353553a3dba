"""The methods that CPU kernels replace.

Kernels cover only configurations that these models use; operators compute all others. Hooks still run, except those of
cells that are part of their parent's kernel.
"""

from collections.abc import Callable, Iterator

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore._c_expression.amp import get_curr_amp_strategy

from ms_vireid.backends import settings
from ms_vireid.backends.numba import optimizer
from ms_vireid.backends.numba.base import Compiled
from ms_vireid.backends.numba.convolution import Convolution, Winograd
from ms_vireid.backends.numba.feature_maps import Fork
from ms_vireid.backends.numba.generator import Depthwise, Pyramids
from ms_vireid.backends.numba.normalisation import BatchNorm
from ms_vireid.backends.numba.pooling import CubicGeM, MaxPool
from ms_vireid.backends.numba.transformer import GELU, Dense, Dropout, DropPath, LayerNorm
from ms_vireid.backends.numba.transformer import Attention as Heads
from ms_vireid.config.models import check_pooled
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import agw, auxiliary_generator, layers, resnet, vit
from ms_vireid.models.noise import Noise, mask_numbers
from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.groups import GroupOptimizer
from ms_vireid.optimizers.sgd import SGD
from ms_vireid.replaceable import Replacement, check_tables

WINOGRAD = 64  # channels from which Winograd is faster, as measured


def _takes(cell: nn.Cell, *tensors: Tensor) -> bool:
    """Whether kernels take the tensors, float32 and not empty, in this cell: `to_float` and `mindspore.amp` have its
    operators cast them."""
    as_they_are = cell.mixed_precision_type is None and get_curr_amp_strategy() is None
    return as_they_are and all(x.dtype == ms.float32 and x.size > 0 for x in tensors)


def gelu(self: nn.GELU, x: Tensor) -> Tensor:
    return GELU.apply(x) if self.approximate == "none" and _takes(self, x) else nn.GELU.construct(self, x)


def layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    operator, gamma, beta, last = self.layer_norm, self.gamma, self.beta, (-1, x.ndim - 1)
    over_last = type(operator) is ops.LayerNorm and operator.begin_norm_axis in last
    over_last = over_last and operator.begin_params_axis in last and gamma.shape == beta.shape == x.shape[-1:]
    if not (over_last and _takes(self, x, gamma, beta)):
        return nn.LayerNorm.construct(self, x)
    return LayerNorm.apply(x, gamma, beta, operator.epsilon)


def layer_norm_in_float32(self: layers.LayerNorm, x: Tensor) -> Tensor:
    gamma, beta = self.gamma, self.beta
    if not (gamma.shape == beta.shape == x.shape[-1:] and _takes(self, x, gamma, beta)):
        return layers.LayerNorm.construct(self, x)
    return LayerNorm.apply(x, gamma, beta, self.epsilon)


def dense(self: nn.Dense, x: Tensor) -> Tensor:
    weight, bias, product = self.weight, self.bias, self.matmul
    known = self.has_bias and not self.activation_flag and type(self.bias_add) is ops.BiasAdd
    known = known and type(product) is ops.MatMul and product.transpose_b and not product.transpose_a
    fitting = known and (x.shape[-1:], bias.shape) == (weight.shape[1:], weight.shape[:1])
    if not (fitting and _takes(self, x, weight, bias)):
        return nn.Dense.construct(self, x)
    return Dense.apply(x, weight, bias)


def attention(self: vit.Attention, x: Tensor, noise: Noise | None) -> Tensor:
    if not (x.ndim == 3 and x.shape[2] == self.num_heads * self.head_dim and _takes(self, x)):
        return vit.Attention.construct(self, x, noise)
    return self.proj_drop(self.proj(Heads.apply(self.qkv(x), self.num_heads, self.head_dim)), noise)


def dropout(self: layers.Dropout, x: Tensor, noise: Noise | None) -> Tensor:
    if not self.training or self.rate == 0.0:
        return x
    if not (x.size == self.parts * noise[0].size and _takes(self, x)):
        return layers.Dropout.construct(self, x, noise)
    numbers = np.array(mask_numbers(0, self.parts), np.int32) * np.int32(self.number)  # wraps
    return Dropout.apply(x, noise[0], numbers, self.limit, self.scale)


def drop_path(self: layers.DropPath, x: Tensor, noise: Noise | None) -> Tensor:
    if not self.training or not self.changes:
        return x
    factors = noise[1][self.layer]
    if not (factors.shape == x.shape[:1] and _takes(self, x, factors)):
        return layers.DropPath.construct(self, x, noise)
    return DropPath.apply(x, factors)


def gem(self: layers.GeM, x: Tensor) -> Tensor:
    if self.learned or self.power != 3.0 or not (x.ndim == 4 and _takes(self, x)):
        return layers.GeM.construct(self, x)
    return CubicGeM.apply(x, self.eps)


def convolution(self: nn.Conv2d, x: Tensor) -> Tensor:
    weight, biased = self.weight, self.has_bias
    geometry = _geometry(self.conv2d)
    if geometry is None or x.ndim != 4 or not _takes(self, x, weight, *([self.bias] if biased else [])):
        return nn.Conv2d.construct(self, x)
    outputs, kernel, stride, border = geometry
    fitting = weight.shape == (outputs, x.shape[1], kernel, kernel) and min(x.shape[2:]) + 2 * border >= kernel
    if not fitting or (biased and (type(self.bias_add) is not ops.BiasAdd or self.bias.shape != (outputs,))):
        return nn.Conv2d.construct(self, x)
    if (kernel, stride, border) == (3, 1, 1) and min(weight.shape[:2]) >= WINOGRAD and not biased:
        return Winograd.apply(x, weight)
    return Convolution.apply(x, weight, self.bias if biased else None, stride, border)


def _geometry(operator: ops.Primitive) -> tuple[int, int, int, int] | None:
    """What a convolution computes by, whatever its layer's attributes say since: outputs, kernel, stride, border; None
    unless these are all, the same for both sides."""
    if type(operator) is not ops.Conv2D:
        return None
    of = operator.attrs
    sides, stride, border = of["kernel_size"], of["stride"][2], of["pad"][0]
    kernel = sides if isinstance(sides, int) else sides[0]
    simple = sides in (kernel, (kernel, kernel)) and of["dilation"] == (1, 1, 1, 1) and of["groups"] == 1
    simple = simple and (of["stride"], of["pad"]) == ((1, 1, stride, stride), (border,) * 4)
    return (of["out_channel"], kernel, stride, border) if simple and of["pad_mode"] in ("pad", "valid") else None


def batch_norm(self: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None = None, relu: bool = False) -> Tensor:
    """With what follows in a residual network: adding a shortcut, ReLU. A BNNeck's rows have MindSpore's operator."""
    of_batch = bool(self.training if self.use_batch_statistics is None else self.use_batch_statistics)
    operator, moving = self.bn_train if of_batch else self.bn_infer, (self.moving_mean, self.moving_variance)
    # Another operator has statistics of several processes.
    known = type(operator) is ops.BatchNorm and operator.is_training == of_batch
    known = known and type(self)._check_input_dim is nn.BatchNorm2d._check_input_dim and x.ndim == 4
    fitting = known and all(weight.shape == x.shape[1:2] for weight in (self.gamma, self.beta, *moving))
    fitting = fitting and (not of_batch or x.size > x.shape[1])  # the variance of one number is no number
    fitting = fitting and (shortcut is None or (shortcut.shape == x.shape and _takes(self, shortcut)))
    if not (fitting and _takes(self, x, self.gamma, self.beta, *moving)):
        x = nn.BatchNorm2d.construct(self, x)
        x = x if shortcut is None else x + shortcut
        return ops.relu(x) if relu else x
    numbers = operator.epsilon, operator.momentum
    return BatchNorm.apply(x, self.gamma, self.beta, shortcut, moving, *numbers, of_batch, relu)


def stages(self: resnet.ResNet, x: Tensor) -> Tensor:
    if self.has_stem:
        x = self.maxpool(batch_norm(self.bn1, self.conv1(x), relu=True))
    for block in self.blocks:
        x = block(x)
    return x


def bottleneck(self: resnet.Bottleneck, x: Tensor) -> Tensor:
    if not (x.ndim == 4 and _takes(self, x)):
        return resnet.Bottleneck.construct(self, x)
    x, shortcut = Fork.apply(x, 2)
    if self.downsample is not None:
        shortcut = self.downsample(shortcut)
    x = batch_norm(self.bn1, self.conv1(x), relu=True)
    x = batch_norm(self.bn2, self.conv2(x), relu=True)
    return batch_norm(self.bn3, self.conv3(x), shortcut, relu=True)


def non_local(self: agw.NonLocal, x: Tensor) -> Tensor:
    if not (x.ndim == 4 and _takes(self, x)):
        return agw.NonLocal.construct(self, x)
    batch, _, rows, columns = x.shape
    *branches, shortcut = Fork.apply(x, 4)
    maps = (layer(branch) for layer, branch in zip((self.g, self.theta, self.phi), branches, strict=True))
    g, theta, phi = (one.reshape(batch, self.width, rows * columns) for one in maps)  # [N, width, L] each
    y = g @ phi.swapaxes(1, 2) / (rows * columns) @ theta  # [N, width, L]
    return batch_norm(self.W[1], self.W[0](y.reshape(batch, self.width, rows, columns)), shortcut)


def knows_non_local(cell: agw.NonLocal) -> bool:
    """Whether W is a convolution and a BatchNorm."""
    return list(map(type, cell.W)) == [nn.Conv2d, nn.BatchNorm2d]


def max_pool(self: nn.MaxPool2d, x: Tensor) -> Tensor:
    if not (settings.is_max_pool(self) and x.ndim == 4 and _takes(self, x)):
        return nn.MaxPool2d.construct(self, x)
    return MaxPool.apply(x)


def intra_modality_learner(self: auxiliary_generator.IntraModalityLearner, x: Tensor) -> Tensor:
    if not (x.ndim == 4 and x.shape[1] == 2 * len(self.first.weight) and _takes(self, x)):
        return auxiliary_generator.IntraModalityLearner.construct(self, x)
    x = Depthwise.apply(x, False, self.first.weight, self.second.weight)
    x = Convolution.apply(self.bn1(x), self.expand.weight, None, 1, 0)
    x = Depthwise.apply(x, True, self.spatial.weight)
    return _scaled(self.scale, self.reduce, self.bn2(x))


def knows_intra(cell: auxiliary_generator.IntraModalityLearner) -> bool:
    """Whether its convolutions are those of the paper: depth-wise ones of any odd size, and pixel by pixel."""
    halves = settings.is_depthwise(cell.first) and settings.is_depthwise(cell.second)
    spatial = settings.is_depthwise(cell.spatial, auxiliary_generator.ResidualDepthwise)
    pointwise = settings.is_pointwise(cell.expand, False) and settings.is_pointwise(cell.reduce, False)
    return halves and spatial and pointwise and len(cell.first.weight) == len(cell.second.weight)


def _scaled(scale: Parameter, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """As `auxiliary_generator.scaled`: scales the weight, which is smaller than the map."""
    return Convolution.apply(x, scale.reshape(-1, 1, 1, 1) * layer.weight, None, 1, 0)


def cross_modality_learner(self: auxiliary_generator.CrossModalityLearner, visible: Tensor, infrared: Tensor) -> Tensor:
    if not (visible.ndim == 4 and visible.shape == infrared.shape and _takes(self, visible, infrared)):
        return auxiliary_generator.CrossModalityLearner.construct(self, visible, infrared)
    check_pooled(visible.shape[2], visible.shape[3], self.ratios)
    x = Pyramids.apply(2, visible, infrared, *(rebuild.weight for rebuild in self.transposed))
    return _scaled(self.scale, self.fuse, self.bn(x))


def knows_cross(cell: auxiliary_generator.CrossModalityLearner) -> bool:
    """Whether each scale is pooled by its ratio, and rebuilt by patches of as many pixels without bias."""
    return settings.is_pointwise(cell.fuse, False) and all(
        settings.is_average_pool(pool, ratio)
        and settings.is_patching(rebuild, ratio)
        and rebuild.in_channels == rebuild.out_channels
        for pool, rebuild, ratio in zip(cell.pools, cell.transposed, cell.ratios, strict=True)
    )


def stage_loss(self: StageLoss, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
    """Values and gradients by one graph: a third of the time, and no leak (in PyNative 512 bytes for each number among
    the operands, 126 kB a step). Another one where a weight, a margin or another setting has changed since."""
    count, graphs = len(outputs), vars(self).setdefault("_graphs", {})
    key = count, *_settings(self)
    if key not in graphs and len(graphs) == _MOST_GRAPHS:
        return StageLoss.construct(self, outputs, labels)
    if key not in graphs:
        values_of, total_of = self.values, self.total

        def terms(labels, *outputs):
            values = values_of(outputs, labels)
            return total_of(values), *values

        graphs[key] = ms.jit(ms.value_and_grad(terms, tuple(range(1, 1 + count)), has_aux=True))
    return Compiled.apply(type(self).__name__, graphs[key], labels, *outputs)


_MOST_GRAPHS = 4  # of a loss: each takes seconds to compile


def _settings(cell: nn.Cell) -> Iterator[tuple[str, str]]:
    """What a graph of the cell holds as constants."""
    for _, part in cell.cells_and_names():
        for name, value in vars(part).items():
            if isinstance(value, bool | int | float | str | tuple) and not name.startswith("_"):
                yield name, str(value)


def _by(by: Callable, without: str = "", knows: Callable[[nn.Cell], bool] | None = None) -> Replacement:
    """without: the slowdown of a full-size training step without it, on two cores with AVX-512."""
    return Replacement(by, without and f"a step of {without} times as long on a CPU", knows)


# Without the convolutions' kernels oneDNN's reference computes them (see `runtime.cap_convolutions`).
CELLS = {
    nn.GELU.construct: _by(gelu, "PMT takes 1.27"),
    layers.LayerNorm.construct: _by(layer_norm_in_float32, "PMT takes 1.15"),
    nn.LayerNorm.construct: _by(layer_norm),
    nn.Dense.construct: _by(dense, "PMT takes 1.16"),
    vit.Attention.construct: _by(attention, "PMT takes 1.05"),
    layers.Dropout.construct: _by(dropout, "PMT takes 1.17"),
    layers.DropPath.construct: _by(drop_path, "PMT takes 1.09"),
    layers.GeM.construct: _by(gem, "AGW takes 1.04"),
    nn.Conv2d.construct: _by(convolution, "AGW takes 45"),
    resnet.ResNet.construct: _by(stages),
    resnet.Bottleneck.construct: _by(bottleneck, "AGW takes 1.23"),
    agw.NonLocal.construct: _by(non_local, "AGW takes 1.11", knows_non_local),
    nn.BatchNorm2d.construct: _by(batch_norm, "AGW takes 1.90"),
    nn.MaxPool2d.construct: _by(max_pool, "AGW takes 1.13"),
    auxiliary_generator.IntraModalityLearner.construct: _by(intra_modality_learner, "MUN takes 2.95", knows_intra),
    auxiliary_generator.CrossModalityLearner.construct: _by(cross_modality_learner, "MUN takes 7.85", knows_cross),
}
OTHERS = {
    StageLoss.construct: _by(stage_loss),
    AdamW.update: _by(optimizer.adamw, "PMT takes 1.04"),
    SGD.update: _by(optimizer.sgd, "AGW takes 1.15"),
    GroupOptimizer.clip: _by(optimizer.clip),  # the demonstration keeps 30 kB a step less, and is some percent faster
}
TABLE = CELLS | OTHERS
check_tables("numba", [TABLE])
