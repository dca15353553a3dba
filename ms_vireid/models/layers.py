"""Layers that the models share: dropout and drop path that can be reproduced, GeM pooling, the BNNeck head."""

import math
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal, Uniform


def to_int32(value: int) -> int:
    """The two's-complement int32 that has the low 32 bits of `value`."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


_GOLDEN = to_int32(0x9E3779B9)  # 2**32 / golden ratio: spreads consecutive integers over 32 bits
_FIRST, _SECOND = to_int32(0x85EBCA6B), to_int32(0xC2B2AE35)  # MurmurHash3's
_MULTIPLIER = 0xADB4A92D  # of a generator modulo 2**32 with a good spectrum (Steele & Vigna 2021)
_PART = 101  # how far apart the powers for an activation's parts are: more than a model has masks of the noise's width


def mask_number(layer: int, part: int = 0) -> int:
    """What a dropout mask multiplies the noise by, an odd int32: a power of one number.

    The noise times an odd number, which wraps, is the same noise in another order; so each mask has its rate, and two
    of them are as good as independent. (An interval of the noise for each mask, somewhere between -2^31 and 2^31, is
    not: it lies in the middle more often than at the ends, and at a rate of 0.2 two masks share 0.046 of the elements
    in place of 0.04. Training lags by that: `parity/measure/dropout.py`.)
    """
    return to_int32(pow(_MULTIPLIER, layer + part * _PART, 1 << 32))


def mask_numbers(layer: int, parts: int) -> list[int]:
    """Of the masks of an activation `parts` times as wide as the noise."""
    return [mask_number(layer, part) for part in (range(1, parts + 1) if parts > 1 else [0])]


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int32 (the operator itself is arithmetic)."""
    return ops.bitwise_right_shift(x, bits) & ((1 << (32 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """A bijective hash of int32 values, element by element (MurmurHash3's finaliser); products wrap."""
    x = (x ^ _shift_right(x, 16)) * _FIRST
    x = (x ^ _shift_right(x, 13)) * _SECOND
    return x ^ _shift_right(x, 16)


def _spread(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers spread over 32 bits: int32 of their shape."""
    return (numbers * _GOLDEN).astype(np.int32)


@cache
def _mixed(count: int, start: int) -> np.ndarray:
    """`mix` of 0, 1, 2 ... spread over 32 bits, plus a start: int32 [count]."""
    x = (_spread(np.arange(count)) + start).astype(np.uint32)
    x = (x ^ x >> 16) * np.uint32(_FIRST & 0xFFFFFFFF)
    x = (x ^ x >> 13) * np.uint32(_SECOND & 0xFFFFFFFF)
    return (x ^ x >> 16).astype(np.int32)


@cache
def _rows(rows: int, shard: tuple[int, int]) -> np.ndarray:
    """The numbers that this device's rows have among those of all devices' batches, spread: int32 [rows].

    A batch has two halves of as many rows, and the union all first halves before all second ones, each in the order of
    the devices. shard: this device's number and how many there are; (0, 1) numbers the rows 0 ... rows - 1.
    """
    rank, devices = shard
    halves = np.arange(devices * rows).reshape(2, devices, -1) if devices > 1 else np.arange(rows).reshape(1, 1, -1)
    return _spread(halves[:, rank].ravel())


@ops.constexpr
@cache
def _starts(rows: int, shard: tuple[int, int], layers: int, numbers: int) -> Tensor:
    """Hash offsets of rows, layers and numbers, concatenated: int32 [rows + layers + numbers]."""
    of_layers = _spread(np.arange(layers)) + np.int32(_GOLDEN)
    return Tensor(np.concatenate([_rows(rows, shard), of_layers, _mixed(numbers, 2)]))


_ALONE = (0, 1)  # the shard of the only device


@ops.constexpr
@cache
def _columns(columns: int) -> Tensor:
    return Tensor(_mixed(columns, 1))


def position_noise(key: Tensor, rows: int, columns: int, shard: tuple[int, int] = (0, 1)) -> Tensor:
    """Pseudo-random int32 [rows, columns], a hash of (key, row, column); key is an int32 scalar for one step, and a row
    is numbered as `_rows` says.

    Made once per forward pass and shared by all dropout layers: integer products and sums take ten times a
    comparison on CPU, so each layer only compares (see `Dropout`).
    """
    return _noise(mix(_starts(rows, shard, 0, 0) + key), columns)


def _noise(row: Tensor, columns: int) -> Tensor:
    rows, column = row.shape[0], _columns(columns)
    noise = (row.reshape(rows, 1) + column.reshape(1, columns)) * _FIRST
    noise = (noise ^ _shift_right(noise, 15)) * _SECOND
    return noise ^ _shift_right(noise, 16)


def uniforms(key: Tensor, count: int) -> Tensor:
    """float32 [count] in [0, 1)."""
    return _shift_right(_numbered(key, count), 8).float() * (1.0 / (1 << 24))


def _numbered(key: Tensor, count: int) -> Tensor:
    """A hash of (key, number): int32 [count]."""
    return mix(_starts(0, _ALONE, 0, count) + key)


@ops.constexpr
def _drop_limit(rate: float) -> int:
    """An int32 that a share `rate` of all int32 values is below."""
    return to_int32(round(rate * 2**32) - 2**31)


@ops.constexpr
def _layer_number(layer: int) -> int:
    return mask_number(layer)


@ops.constexpr
@cache
def _part_numbers(parts: int) -> Tensor:
    """int32 [parts, 1]."""
    return Tensor(mask_numbers(0, parts), ms.int32).reshape(parts, 1)


@ops.constexpr
@cache
def constant(value: float, dtype: ms.Type) -> Tensor:
    """A scalar for operators that would cast a number at every call."""
    return Tensor(value, dtype)


@ops.constexpr
def _kept_scale(rate: float) -> float:
    """What the rest is multiplied by where a share `rate` is dropped."""
    return 1.0 / (1.0 - rate)


def path_factors(
    key: Tensor, rates: tuple[float, ...], samples: int, shard: tuple[int, int] = (0, 1), dropout: float = 0.0
) -> Tensor:
    """What each residual branch is multiplied by: float32 [layers, samples], 0 with the layer's rate and else
    1 / (1 - rate), by a hash of (key, layer, sample). Each includes the 1 / (1 - dropout) that the branch's last
    `Dropout` leaves out."""
    return _factors(mix(_starts(0, _ALONE, len(rates), 0) + key), rates, samples, shard, dropout)


def _factors(layer: Tensor, rates: tuple[float, ...], samples: int, shard: tuple[int, int], dropout: float) -> Tensor:
    noise = mix(_starts(samples, shard, 0, 0).unsqueeze(0) + layer.unsqueeze(1))
    limits = Tensor([[_drop_limit(rate)] for rate in rates], ms.int32)
    scales = Tensor([[_kept_scale(rate) * _kept_scale(dropout)] for rate in rates], ms.float32)
    return ops.where(noise >= limits, scales, 0.0)


def step_noise(
    key: Tensor,
    positions: tuple[int, int],
    rates: tuple[float, ...],
    samples: int,
    shard: tuple[int, int],
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Equivalent to `position_noise` and `path_factors`; hashes the key once."""
    rows, layers = positions[0], len(rates)
    hashes = mix(_starts(rows, shard, layers, 0) + key)
    factors = _factors(hashes[rows:], rates, samples, shard, dropout)
    return _noise(hashes[:rows], positions[1]), factors


def check_rate(rate: float, name: str) -> None:
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {rate}")


class Dropout(nn.Cell):
    """Dropout whose mask is a hash of (seed, step, layer, position): resumable, and the same in both frameworks.

    An element is dropped when its noise times the mask's number is below a limit that a share `rate` of all int32
    values is below. An activation `parts` times as wide as the noise takes that many masks: the noise times a number
    for each part, which is the same in all layers, so that a graph computes it once, times the layer's.

    Args:
        rate: probability that an element is zeroed; the others are scaled by 1 / (1 - rate).
        layer: number of this layer among those of as many parts.
        parts: width of the activation as a multiple of the noise's.
        scaled: False leaves the others as they are, where the next layer scales them; saves one pass over the tensor.
    """

    def __init__(self, rate: float, layer: int, parts: int = 1, scaled: bool = True):
        super().__init__()
        check_rate(rate, "dropout")
        self.rate = rate
        self.layer = layer
        self.parts = parts
        self.limit = _drop_limit(rate)
        self.scale = _kept_scale(rate) if scaled else 1.0

    def construct(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """x: [..., parts * C]. noise: int32 [..., C], only in training."""
        if not self.training or self.rate == 0.0:
            return x
        dropped = self.numbers(noise) < self.limit
        x = x.masked_fill(dropped.reshape(x.shape), constant(0.0, x.dtype))
        return x * self.scale if self.scale != 1.0 else x

    def numbers(self, noise: Tensor) -> Tensor:
        """What decides: int32 [..., C], or [..., parts, C]."""
        if self.parts > 1:
            noise = noise.unsqueeze(-2) * _part_numbers(self.parts)
        return noise * _layer_number(self.layer)


class DropPath(nn.Cell):
    """Stochastic depth: a residual branch is dropped for whole samples, by the same kind of hash as `Dropout`.

    Args:
        rate: probability that a sample's branch is dropped; the others are scaled by 1 / (1 - rate).
        layer: row of this layer in the step's `path_factors`.
        dropout: rate of the branch's last `Dropout`, which leaves scaling to this layer.
    """

    def __init__(self, rate: float, layer: int, dropout: float = 0.0):
        super().__init__()
        check_rate(rate, "drop_path")
        self.changes = rate > 0.0 or dropout > 0.0
        self.rate = rate
        self.layer = layer

    def construct(self, x: Tensor, factors: Tensor | None) -> Tensor:
        """x: [N, ...]. factors: [layers, N], only in training."""
        if not self.training or not self.changes:
            return x
        return x * factors[self.layer].reshape((-1,) + (1,) * (x.ndim - 1))


GEM_MIN = 1e-6  # inputs are clamped: d/dp contains log x


class GeM(nn.Cell):
    """Generalised-mean pooling over all positions, (mean(x^p) + eps)^(1/p), as in AGW's release: p is fixed, and x is
    not clamped, as a ReLU has made it >= 0.

    power: p, where it starts if it is learned. eps: added to the mean. learned: p is a weight, kept at 0.01 or more,
    and x is kept at `GEM_MIN` or more, as where GeM comes from (Radenovic et al. 2018).
    """

    def __init__(self, power: float = 3.0, eps: float = 1e-12, learned: bool = False):
        super().__init__()
        if power <= 0:
            raise ValueError(f"power must be above 0, got {power}")
        self.power = Parameter(Tensor([power], ms.float32)) if learned else power
        self.eps = eps
        self.learned = learned

    def construct(self, x: Tensor) -> Tensor:
        """[N, C, H, W], not negative -> float32 [N, C]."""
        x = x.astype(ms.float32)
        if not self.learned:
            return (x.pow(self.power).mean((2, 3)) + self.eps).pow(1.0 / self.power)
        power = self.trained_power()
        return ((x.clamp(min=GEM_MIN).log() * power).exp().mean((2, 3)) + self.eps).pow(1.0 / power)

    def trained_power(self) -> Tensor:
        """float32 [1]."""
        return self.power.clamp(min=0.01)


def bn_neck(features: int, spread: float = 0.0) -> nn.BatchNorm1d:
    """BatchNorm between the feature that the metric losses see and the classifier; its bias stays at 0.

    Its scale starts at 1, or where `spread` is not 0 at draws from a normal distribution around 1 of that deviation.
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
