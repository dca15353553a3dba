"""Layers that the models share: dropout and drop path that can be reproduced, GeM pooling, the BNNeck head."""

import math
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal, Uniform

from ms_vireid.programs.ascend import ready
from ms_vireid.programs.operators import (
    ByHand,
    Dense,
    bitwise_and,
    bitwise_or,
    bitwise_xor,
    constant,
    mean,
    numbers,
    total_kept,
)

_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive integers over 32 bits


def to_int32(value: int) -> int:
    """The two's-complement int32 that has the low 32 bits of `value`."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int32 (the operator itself is arithmetic)."""
    shifted = ops.bitwise_right_shift(x, constant(bits, ms.int32))
    return bitwise_and(shifted, constant((1 << (32 - bits)) - 1, ms.int32))


@ops.constexpr
@cache
def _union_rows(rows: int, shard: tuple[int, int]) -> Tensor:
    """Numbers of this device's rows among those of all devices' batches: int32 [rows].

    A batch has two halves of as many rows, and the union all first halves before all second ones, each in the order of
    the devices. shard: this device's number and how many there are; (0, 1) gives 0 ... rows - 1.
    """
    rank, devices = shard
    half = rows // 2
    own = np.arange(rows)
    if devices > 1:
        own += (own < half) * ((1 - devices) * half) + (devices - 1 + rank) * half
    return Tensor(own, ms.int32)


def _times(x: Tensor, factor: int) -> Tensor:
    """The product of int32, which wraps."""
    return x * constant(to_int32(factor), ms.int32)


def mix(x: Tensor) -> Tensor:
    """A bijective hash of int32 values, element by element (MurmurHash3's finaliser); products wrap."""
    x = _times(bitwise_xor(x, _shift_right(x, 16)), 0x85EBCA6B)
    x = _times(bitwise_xor(x, _shift_right(x, 13)), 0xC2B2AE35)
    return bitwise_xor(x, _shift_right(x, 16))


def position_noise(key: Tensor, rows: int | tuple[int, ...], columns: int, shard: tuple[int, int] = (0, 1)) -> Tensor:
    """Pseudo-random int32 [rows, columns], a hash of (key, row, column); key is an int32 scalar for one step, and a row
    is numbered by `_union_rows`. rows: how many, or a shape that they fill in order, [*rows, columns].

    Made once per forward pass and shared by all dropout layers: integer products and sums take ten times a
    comparison on CPU, so each layer only compares (see `Dropout`).
    """
    shape = (rows,) if isinstance(rows, int) else rows
    row = mix(ops.add(_times(_union_rows(math.prod(shape), shard), _GOLDEN), key))
    column = mix(ops.add(_times(numbers(columns), _GOLDEN), constant(1, ms.int32)))
    noise = _times(ops.add(row.reshape((*shape, 1)), column), 0x85EBCA6B)
    noise = _times(bitwise_xor(noise, _shift_right(noise, 15)), 0xC2B2AE35)
    return bitwise_xor(noise, _shift_right(noise, 16))


def mask_multipliers(key: Tensor, count: int) -> Tensor:
    """An odd number for each dropout mask of a step: int32 [count].

    The noise times an odd number, which wraps, is the same noise in another order; so each mask has its rate, and two
    of them are as good as independent. (An interval of the noise for each mask, somewhere between -2^31 and 2^31, is
    not: it lies in the middle more often than at the ends, and at a rate of 0.2 two masks share 0.046 of the elements
    in place of 0.04. Training lags by that: `parity/measure/dropout.py`.)
    """
    return bitwise_or(_numbered(key, count), constant(1, ms.int32))


def uniforms(key: Tensor, count: int) -> Tensor:
    """float32 [count] in [0, 1)."""
    hashed = _shift_right(_numbered(key, count), 8)
    return hashed.astype(ms.float32) * constant(1.0 / (1 << 24), ms.float32)


def _numbered(key: Tensor, count: int) -> Tensor:
    """A hash of (key, number): int32 [count]."""
    own = mix(ops.add(_times(numbers(count), _GOLDEN), constant(2, ms.int32)))
    return mix(ops.add(own, key))


def drop_limit(rate: float) -> int:
    """An int32 that a share `rate` of all int32 values is below."""
    return to_int32(round(rate * 2**32) - 2**31)


_drop_limit = ops.constexpr(drop_limit)  # within a graph


@ops.constexpr
@cache
def _path_constants(rates: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """The noise below which each layer drops a branch, and the factor of those that it keeps: [layers, 1] each."""
    limits = Tensor([[drop_limit(rate)] for rate in rates], ms.int32)
    return limits, Tensor([[1.0 / (1.0 - rate)] for rate in rates], ms.float32)


def path_factors(key: Tensor, rates: tuple[float, ...], samples: int, shard: tuple[int, int] = (0, 1)) -> Tensor:
    """What each residual branch is multiplied by: float32 [layers, samples], 0 with the layer's rate and else
    1 / (1 - rate), by a hash of (key, layer, sample)."""
    layers = len(rates)
    layer = mix(ops.add(_times(ops.add(numbers(layers), constant(1, ms.int32)), _GOLDEN), key))
    sample = _times(_union_rows(samples, shard), _GOLDEN)
    noise = mix(ops.add(sample, layer.reshape(layers, 1)))
    limits, scales = _path_constants(rates)
    return ops.where(noise >= limits, scales, constant(0.0, ms.float32))


def check_rate(rate: float, name: str) -> None:
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {rate}")


class _Masked(nn.Cell):
    """x with zeros where `dropped`, times `scale`. The derivative is written out: automatic differentiation also sums
    the gradient of what is filled in, and keeps more than the boolean mask."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def construct(self, x: Tensor, dropped: Tensor) -> Tensor:
        return self.masked(x, dropped)

    def bprop(self, _x: Tensor, dropped: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return self.masked(gradient, dropped), ops.zeros_like(dropped)

    def masked(self, x: Tensor, dropped: Tensor) -> Tensor:
        return x.masked_fill(dropped, constant(0.0, x.dtype)) * constant(self.scale, x.dtype)


class Dropout(nn.Cell):
    """Dropout whose mask is a hash of (seed, step, layer, position): resumable, and the same in both frameworks.

    An element is dropped when its noise times the mask's number of this step is below a limit that a share `rate` of
    all int32 values is below. An activation `parts` times as wide as the noise takes that many masks.

    Args:
        rate: probability that an element is zeroed; the others are scaled by 1 / (1 - rate).
        layer: index of this layer's first mask in the step's `mask_multipliers`.
        parts: width of the activation as a multiple of the noise's.
    """

    def __init__(self, rate: float, layer: int, parts: int = 1):
        super().__init__()
        check_rate(rate, "dropout")
        self.rate = rate
        self.layer = layer
        self.parts = parts
        self.limit = drop_limit(rate)
        self.masked = _Masked(1.0 / (1.0 - rate))

    def construct(self, x: Tensor, noise: Tensor | None, multipliers: Tensor | None) -> Tensor:
        """x: [..., parts * C]. noise: int32 [..., C]. multipliers: int32 [masks]. The last two only in training."""
        if not self.training or self.rate == 0.0:
            return x
        own = multipliers[self.layer : self.layer + self.parts]
        limit = constant(self.limit, ms.int32)
        if self.parts == 1:
            return self.masked(x, noise * own < limit)
        dropped = ops.expand_dims(noise, -2) * own.reshape(self.parts, 1) < limit  # [..., parts, C]
        return self.masked(x, dropped.reshape(x.shape))


class _Scaled(ByHand):
    """Samples of x times a factor each, of which nobody needs the derivative."""

    def construct(self, x: Tensor, factors: Tensor) -> Tensor:
        """[N, ...] and [N, 1 ...]."""
        return x * factors

    def derivative(self, _x: Tensor, factors: Tensor, _out: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient * factors, ops.zeros_like(factors)


class DropPath(nn.Cell):
    """Stochastic depth: a residual branch is dropped for whole samples, by the same kind of hash as `Dropout`.

    Args:
        rate: probability that a sample's branch is dropped; the others are scaled by 1 / (1 - rate).
        layer: row of this layer in the step's `path_factors`.
    """

    def __init__(self, rate: float, layer: int):
        super().__init__()
        check_rate(rate, "drop_path")
        self.rate = rate
        self.layer = layer
        self.scaled = _Scaled()

    def construct(self, x: Tensor, factors: Tensor | None) -> Tensor:
        """x: [N, ...]. factors: float32 [layers, N], only in training."""
        if not self.training or self.rate == 0.0:
            return x
        own = factors[self.layer].astype(x.dtype)
        return self.scaled(x, own.reshape((-1,) + (1,) * (x.ndim - 1)))


class GeM(nn.Cell):
    """Generalised-mean pooling over all positions, (mean(x^p) + eps)^(1/p), as in AGW's release: p is fixed, and x is
    not clamped, as a ReLU has made it >= 0."""

    def __init__(self, power: float = 3.0, eps: float = 1e-12):
        super().__init__()
        if power <= 0:
            raise ValueError(f"power must be above 0, got {power}")
        self.power = power
        self.eps = eps

    def construct(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W], not negative -> [N, C]."""
        return ops.pow(mean(ops.pow(x, self.power), (2, 3)) + self.eps, 1.0 / self.power)


def bn_neck(features: int, spread: float = 0.0) -> nn.BatchNorm1d:
    """BatchNorm between the feature that the metric losses see and the classifier; its bias stays at 0.

    Its scale starts at 1, or where `spread` is not 0 at draws from a normal distribution around 1 of that deviation.
    """
    scale = Normal(spread, 1.0) if spread else "ones"
    # MindSpore's momentum weighs the old statistics: 0.9 here is PyTorch's 0.1.
    bottleneck = nn.BatchNorm1d(features, eps=1e-5, momentum=0.9, gamma_init=scale)
    bottleneck.beta.requires_grad = False
    return ready(bottleneck)


def pointwise(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """1x1 convolution, initialised as PyTorch does by default."""
    bound = 1.0 / math.sqrt(inputs)
    convolution = nn.Conv2d(
        inputs,
        outputs,
        1,
        stride=1,
        pad_mode="pad",
        padding=0,
        has_bias=bias,
        weight_init=Uniform(bound),
        bias_init=Uniform(bound),
    )
    return ready(convolution)


def identity_classifier(features: int, num_classes: int) -> Dense:
    return ready(Dense(features, num_classes, weight_init=Normal(0.001), has_bias=False))


def l2_normalise(x: Tensor) -> Tensor:
    """Rows of x [N, C] scaled to unit Euclidean length (rows shorter than 1e-12 are divided by 1e-12)."""
    length = ops.sqrt(total_kept(x * x, 1))
    return x / ops.maximum(length, Tensor(1e-12, x.dtype))
