"""The methods that CPU kernels replace.

Kernels cover only configurations that these models use; operators compute all others. Hooks still run, except those of
cells that are part of their parent's kernel.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore._c_expression.amp import get_curr_amp_strategy
from mindspore.graph.api import _pynative_executor

from ms_vireid.backends import settings
from ms_vireid.backends.numba import inference, optimizer
from ms_vireid.backends.numba.base import Compiled, array
from ms_vireid.backends.numba.convolution import Convolution, Winograd
from ms_vireid.backends.numba.feature_maps import Fork
from ms_vireid.backends.numba.generator import Depthwise, Pyramids
from ms_vireid.backends.numba.inference import Layer, Part
from ms_vireid.backends.numba.normalisation import BatchNorm
from ms_vireid.backends.numba.pooling import CubicGeM, MaxPool
from ms_vireid.backends.numba.products import to_rows
from ms_vireid.backends.numba.transformer import GELU, Dense, Dropout, DropPath, LayerNorm
from ms_vireid.backends.numba.transformer import Attention as Heads
from ms_vireid.backends.reading import has_hooks
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
    geometry = _convolution(self)
    if geometry is None or x.ndim != 4 or not _takes(self, x):
        return nn.Conv2d.construct(self, x)
    weight, biased, (stride, border) = self.weight, self.has_bias, geometry
    if weight.shape[1] != x.shape[1] or min(x.shape[2:]) + 2 * border < weight.shape[2]:
        return nn.Conv2d.construct(self, x)
    if _by_tiles(self, stride, border):
        return Winograd.apply(x, weight)
    return Convolution.apply(x, weight, self.bias if biased else None, stride, border)


def _convolution(cell: nn.Conv2d) -> tuple[int, int] | None:
    """Stride and border of a convolution that kernels take."""
    weight, biased, geometry = cell.weight, cell.has_bias, _geometry(cell.conv2d)
    if geometry is None or not _takes(cell, weight, *([cell.bias] if biased else [])):
        return None
    outputs, kernel, stride, border = geometry
    fitting = weight.ndim == 4 and (weight.shape[0], *weight.shape[2:]) == (outputs, kernel, kernel)
    if not fitting or (biased and (type(cell.bias_add) is not ops.BiasAdd or cell.bias.shape != (outputs,))):
        return None
    return stride, border


def _by_tiles(cell: nn.Conv2d, stride: int, border: int) -> bool:
    outputs, inputs, kernel, _ = cell.weight.shape
    return (kernel, stride, border) == (3, 1, 1) and min(outputs, inputs) >= WINOGRAD and not cell.has_bias


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
    of_batch, moving = _of_batch(self), (self.moving_mean, self.moving_variance)
    fitting = x.ndim == 4 and _takes(self, x) and _knows_norm(self, x.shape[1])
    fitting = fitting and (not of_batch or x.size > x.shape[1])  # the variance of one number is no number
    fitting = fitting and (shortcut is None or (shortcut.shape == x.shape and _takes(self, shortcut)))
    if not fitting:
        x = nn.BatchNorm2d.construct(self, x)
        x = x if shortcut is None else x + shortcut
        return ops.relu(x) if relu else x
    operator = self.bn_train if of_batch else self.bn_infer
    numbers = operator.epsilon, operator.momentum
    return BatchNorm.apply(x, self.gamma, self.beta, shortcut, moving, *numbers, of_batch, relu)


def _of_batch(cell: nn.BatchNorm2d) -> bool:
    """Whether a BatchNorm normalises by the batch, not by running averages."""
    return bool(cell.training if cell.use_batch_statistics is None else cell.use_batch_statistics)


def _knows_norm(cell: nn.BatchNorm2d, channels: int) -> bool:
    of_batch = _of_batch(cell)
    operator = cell.bn_train if of_batch else cell.bn_infer
    # Another operator has statistics of several processes.
    known = type(operator) is ops.BatchNorm and operator.is_training == of_batch
    known = known and type(cell)._check_input_dim is nn.BatchNorm2d._check_input_dim
    weights = cell.gamma, cell.beta, cell.moving_mean, cell.moving_variance
    return known and all(weight.shape == (channels,) for weight in weights) and _takes(cell, *weights)


def _layer(convolution: nn.Cell, norm: nn.Cell) -> Layer | None:
    """A convolution and its BatchNorm in evaluation, if kernels take both."""
    if (type(convolution), type(norm)) != (nn.Conv2d, nn.BatchNorm2d) or _of_batch(norm):
        return None
    geometry = _convolution(convolution)
    if geometry is None or not _knows_norm(norm, len(convolution.weight)):
        return None
    mean, variance, gamma, beta = map(array, (norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta))
    slope = gamma / np.sqrt(variance + np.float32(norm.bn_infer.epsilon))
    if convolution.has_bias:
        mean = mean - array(convolution.bias)
    numbers = map(to_rows, (slope, beta - mean * slope))
    return Layer(array(convolution.weight), *geometry, _by_tiles(convolution, *geometry), *numbers)


def _as_given(*cells: nn.Cell) -> bool:
    """Whether none of the cells and their parts has a hook, or is told to compute in another type."""
    return not any(has_hooks(one) or not _takes(one) for cell in cells for _, one in cell.cells_and_names())


def _stem(cell: resnet.ResNet) -> Part | None:
    if not (_as_given(cell.conv1, cell.bn1, cell.maxpool) and settings.is_max_pool(cell.maxpool)):
        return None
    layer = _layer(cell.conv1, cell.bn1)
    return layer and inference.stem(layer)


def _block(cell: resnet.Bottleneck | agw.NonLocal) -> Part | None:
    """A block in evaluation, if kernels take all of it."""
    if not _as_given(cell):
        return None
    if isinstance(cell, agw.NonLocal):
        branches, last = (cell.g, cell.theta, cell.phi), _layer(*cell.W) if knows_non_local(cell) else None
        if last is None or not all(settings.is_pointwise(one, True) and _convolution(one) for one in branches):
            return None
        return inference.non_local([array(one.weight) for one in branches], [array(one.bias) for one in branches], last)
    pairs = [(cell.conv1, cell.bn1), (cell.conv2, cell.bn2), (cell.conv3, cell.bn3)]
    if cell.downsample is not None:
        pairs.append(tuple(cell.downsample))
    layers = [_layer(*pair) for pair in pairs if len(pair) == 2]
    return None if None in layers or len(layers) < len(pairs) else inference.bottleneck(*layers)


def _inferred(x: Tensor, parts: Iterable[Part | None]) -> Tensor | None:
    """The last part's map, where no gradient is wanted and kernels take all parts in evaluation."""
    if x.ndim != 4 or x.dtype != ms.float32 or x.size == 0 or _pynative_executor.grad_flag():
        return None
    known = list(parts)
    return None if None in known else inference.infer(known, x)


def blocks(self: agw.AGW, x: Tensor) -> Tensor:
    y = _inferred(x, map(_block, self.shared))
    return agw.AGW.shared_blocks(self, x) if y is None else y


def stages(self: resnet.ResNet, x: Tensor) -> Tensor:
    y = _inferred(x, chain([_stem(self)] if self.has_stem else [], map(_block, self.blocks))) if _takes(self) else None
    if y is not None:
        return y
    if self.has_stem:
        x = self.maxpool(batch_norm(self.bn1, self.conv1(x), relu=True))
    for block in self.blocks:
        x = block(x)
    return x


def bottleneck(self: resnet.Bottleneck, x: Tensor) -> Tensor:
    if not (x.ndim == 4 and _takes(self, x)):
        return resnet.Bottleneck.construct(self, x)
    if (y := _inferred(x, [_block(self)])) is not None:
        return y
    x, shortcut = Fork.apply(x, 2)
    if self.downsample is not None:
        shortcut = self.downsample(shortcut)
    x = batch_norm(self.bn1, self.conv1(x), relu=True)
    x = batch_norm(self.bn2, self.conv2(x), relu=True)
    return batch_norm(self.bn3, self.conv3(x), shortcut, relu=True)


def non_local(self: agw.NonLocal, x: Tensor) -> Tensor:
    if not (x.ndim == 4 and _takes(self, x)):
        return agw.NonLocal.construct(self, x)
    if (y := _inferred(x, [_block(self)])) is not None:
        return y
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
    agw.AGW.shared_blocks: _by(blocks),
    StageLoss.construct: _by(stage_loss),
    AdamW.update: _by(optimizer.adamw, "PMT takes 1.04"),
    SGD.update: _by(optimizer.sgd, "AGW takes 1.15"),
    GroupOptimizer.clip: _by(optimizer.clip),  # the demonstration keeps 30 kB a step less, and is some percent faster
}
TABLE = CELLS | OTHERS
check_tables("numba", [TABLE])
