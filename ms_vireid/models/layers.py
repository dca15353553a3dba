"""Layers that the models share: dropout and drop path that can be reproduced, GeM pooling, the BNNeck head."""

import math
import sys
from functools import cache

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal, Uniform

from ms_vireid.command.arguments import number
from ms_vireid.models.noise import Noise, drop_limit, kept_scale, mask_number, mask_numbers
from ms_vireid.replaceable import replaceable


@ops.constexpr
@cache
def constant(value: float, dtype: ms.Type) -> Tensor:
    """A scalar of an activation's type, for operators that would cast a number at every call."""
    return Tensor(value, dtype)


class Dropout(nn.Cell):
    """Dropout whose mask is a hash of (seed, step, layer, position): resumable, and the same in both frameworks.

    An element is dropped when its noise times the mask's number is below `drop_limit(rate)`. An activation that is
    `parts` times as wide as the noise takes that many masks: the noise times the part's number times the layer's.
    Parts have the same numbers in all layers.

    Args:
        rate: probability that an element is zeroed; the others are scaled by 1 / (1 - rate).
        layer: number of this layer among those with as many parts.
        parts: width of the activation as a multiple of the noise's.
        scaled: False where the next layer scales; saves one pass over the tensor.
    """

    def __init__(self, rate: float, layer: int, parts: int = 1, scaled: bool = True):
        super().__init__()
        rate = number("dropout", rate, 0, below=1)
        self.rate = rate
        self.layer = layer
        self.parts = parts
        self.limit = drop_limit(rate)
        self.scale = kept_scale(rate) if scaled else 1.0
        self.number = mask_number(layer)

    @replaceable("numba", "graph", "cuda")
    def construct(self, x: Tensor, noise: Noise | None) -> Tensor:
        """x: [N, T, parts * C]. noise: only in training."""
        if not self.training or self.rate == 0.0:
            return x
        dropped = self.numbers(noise[0]) < self.limit
        x = x.masked_fill(dropped.reshape(x.shape), constant(0.0, x.dtype))
        return x * self.scale if self.scale != 1.0 else x

    def numbers(self, positions: Tensor) -> Tensor:
        """Compared with the limit: int32 [N, T, C], or [N, T, parts, C]."""
        if self.parts > 1:
            positions = positions.unsqueeze(-2) * _part_numbers(self.parts)
        return positions * self.number


@ops.constexpr
@cache
def _part_numbers(parts: int) -> Tensor:
    """int32 [parts, 1]: one tensor for all layers, so that a graph multiplies once."""
    return Tensor(mask_numbers(0, parts), ms.int32).reshape(parts, 1)


class DropPath(nn.Cell):
    """Stochastic depth: a residual branch is dropped for whole samples, by the same kind of hash as `Dropout`.

    Args:
        rate: probability that a sample's branch is dropped; the others are scaled by 1 / (1 - rate).
        layer: this layer's row of `path_factors`.
        dropout: rate of the branch's last `Dropout`, which leaves scaling to this layer.
    """

    def __init__(self, rate: float, layer: int, dropout: float = 0.0):
        super().__init__()
        rate = number("drop_path", rate, 0, below=1)
        self.changes = rate > 0.0 or dropout > 0.0
        self.rate = rate
        self.layer = layer

    @replaceable("numba", "graph")
    def construct(self, x: Tensor, noise: Noise | None) -> Tensor:
        """x: [N, ...]. noise: only in training."""
        if not self.training or not self.changes:
            return x
        return x * noise[1][self.layer].reshape((-1,) + (1,) * (x.ndim - 1))


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis, in float32; the result has x's type. The gradient of MindSpore's operator does not
    know epsilon on an Ascend."""

    @replaceable("numba", "graph", "cuda")
    def construct(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        rows = x.astype(ms.float32)
        centred = rows - rows.mean(-1, keep_dims=True)
        variance = ops.square(centred).mean(-1, keep_dims=True)
        return (centred / ops.sqrt(variance + self.epsilon) * self.gamma + self.beta).astype(x.dtype)


GEM_MIN = 1e-6  # inputs are clamped: d/dp contains log x


class GeM(nn.Cell):
    """Generalised-mean pooling over all positions, (mean(x^p) + eps)^(1/p), as in AGW's release: p is fixed, and x is
    not clamped, as a ReLU has made it >= 0.

    power: p, or its initial value. eps: added to the mean. learned: p is a weight, clamped to at least 0.01, and x is
    clamped to at least `GEM_MIN`, as in the paper of GeM (Radenovic et al. 2018).
    """

    def __init__(self, power: float = 3.0, eps: float = 1e-12, learned: bool = False):
        super().__init__()
        power = number("power", power, sys.float_info.min)
        self.power = Parameter(Tensor([power], ms.float32)) if learned else power
        self.eps = eps
        self.learned = learned

    @replaceable("numba", "graph")
    def construct(self, x: Tensor) -> Tensor:
        """[N, C, H, W], not negative -> float32 [N, C]."""
        x = x.astype(ms.float32)
        power = self.trained_power().astype(ms.float64) if self.learned else self.power
        if self.learned:
            powers = raised(x.clamp(min=GEM_MIN), power)
        elif self.power == 3.0:
            powers = x * x * x
        else:
            powers = ops.where(x > 0, raised(ops.where(x > 0, x, 1.0), power), 0.0)
        return raised(powers.mean((2, 3)) + self.eps, 1.0 / power)

    def trained_power(self) -> Tensor:
        """float32 [1]."""
        return self.power.clamp(min=0.01)


def raised(x: Tensor, power: Tensor | float) -> Tensor:
    """x^power of float32 x > 0, the same bit for bit at each call (`ms_vireid.losses.logarithms`)."""
    return ops.exp(ops.log(x.astype(ms.float64)) * power).astype(ms.float32)


def bn_neck(features: int, spread: float = 0.0) -> nn.BatchNorm1d:
    """BatchNorm between the feature that the metric losses see and the classifier; its bias stays at 0.

    Its scale starts at 1, or with a `spread` at draws from N(1, spread).
    """
    scale = Normal(spread, 1.0) if spread else "ones"
    # MindSpore's momentum weighs the old statistics: 0.9 here is PyTorch's 0.1.
    bottleneck = nn.BatchNorm1d(features, eps=1e-5, momentum=0.9, gamma_init=scale)
    bottleneck.beta.requires_grad = False
    return bottleneck


def pointwise(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """1x1 convolution, initialised as PyTorch does by default."""
    init = Uniform(1.0 / math.sqrt(inputs))
    return nn.Conv2d(inputs, outputs, 1, pad_mode="valid", has_bias=bias, weight_init=init, bias_init=init)


def identity_classifier(features: int, num_classes: int) -> nn.Dense:
    return nn.Dense(features, num_classes, weight_init=Normal(0.001), has_bias=False)


def l2_normalise(x: Tensor) -> Tensor:
    """Rows of x [N, C] scaled to unit Euclidean length (rows shorter than 1e-12 are divided by 1e-12)."""
    length = ops.sqrt((x * x).sum(1, keepdims=True))
    return x / length.clamp(min=1e-12)
