"""Random numbers of a training step as hashes of its key: resumable, and the same in both frameworks."""

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

# Shared by all layers of a forward pass: a random number for each position, int32 [N, T, C], which `Dropout` multiplies
# and compares, and a factor for each residual branch of each sample, [layers, N], for `DropPath`.
Noise = tuple[Tensor, Tensor]


def to_int32(value: int) -> int:
    """The two's-complement int32 that has the low 32 bits of `value`."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


_GOLDEN = to_int32(0x9E3779B9)  # 2**32 / golden ratio: spreads consecutive integers over 32 bits
_FIRST, _SECOND = to_int32(0x85EBCA6B), to_int32(0xC2B2AE35)  # MurmurHash3's
_MULTIPLIER = 0xADB4A92D  # of a generator modulo 2**32 with a good spectrum (Steele & Vigna 2021)
_PART = 101  # how far apart the powers for an activation's parts are: more than a model has masks of the noise's width


def mask_number(layer: int, part: int = 0) -> int:
    """The odd int32 by which a dropout mask multiplies the noise: a power of one number.

    The noise times an odd number, which wraps, is the same noise in another order; so each mask has its rate, and two
    of them are as good as independent. (An interval of the noise for each mask, somewhere between -2^31 and 2^31, is
    not: it lies in the middle more often than at the ends, and at a rate of 0.2 two masks share 0.046 of the elements
    in place of 0.04. Training lags by that: docs/evidence/trainings.md.)
    """
    return to_int32(pow(_MULTIPLIER, layer + part * _PART, 1 << 32))


def mask_numbers(layer: int, parts: int) -> list[int]:
    """`mask_number` of each mask of an activation `parts` times as wide as the noise."""
    return [mask_number(layer, part) for part in (range(1, parts + 1) if parts > 1 else [0])]


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int32 (the operator itself is arithmetic)."""
    return ops.bitwise_right_shift(x, bits) & ((1 << (32 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """A bijective hash of int32 values, element by element (MurmurHash3's finaliser); products wrap."""
    x = (x ^ _shift_right(x, 16)) * _FIRST
    x = (x ^ _shift_right(x, 13)) * _SECOND
    return x ^ _shift_right(x, 16)


_ALONE = (0, 1)  # rank and number of devices, of the only one


def _spread(numbers: np.ndarray) -> np.ndarray:
    """Spread integers over 32 bits: int32 of the same shape."""
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
    """Number this device's rows among those of all devices' batches, spread over 32 bits: int32 [rows].

    A batch has two halves of equal size. The union of all batches has all first halves before all second ones, each in
    the order of the devices. shard: this device's rank and the number of devices; (0, 1) numbers 0 ... rows - 1.
    """
    rank, devices = shard
    halves = np.arange(devices * rows).reshape(2, devices, -1) if devices > 1 else np.arange(rows).reshape(1, 1, -1)
    return _spread(halves[:, rank].ravel())


@ops.constexpr
@cache
def _starts(rows: int, shard: tuple[int, int], layers: int = 0) -> Tensor:
    """Hash offsets of rows and layers, concatenated: int32 [rows + layers]."""
    return Tensor(np.concatenate([_rows(rows, shard), _spread(np.arange(layers)) + np.int32(_GOLDEN)]))


@ops.constexpr
@cache
def _hashes(count: int, start: int) -> Tensor:
    return Tensor(_mixed(count, start))


def position_noise(key: Tensor, rows: int, columns: int, shard: tuple[int, int] = _ALONE) -> Tensor:
    """Pseudo-random int32 [rows, columns]: a hash of (key, row, column), with rows numbered by `_rows`. key: int32
    scalar, this step's.

    Made once per forward pass and shared by all dropout layers: integer products and sums take ten times a
    comparison on CPU, so each layer only compares (see `Dropout`).
    """
    return _noise(mix(_starts(rows, shard) + key), _hashes(columns, 1))


def _noise(row: Tensor, column: Tensor) -> Tensor:
    """Hash what rows and columns start from, [rows] and [columns], to [rows, columns]."""
    noise = (row.reshape(-1, 1) + column.reshape(1, -1)) * _FIRST
    noise = (noise ^ _shift_right(noise, 15)) * _SECOND
    return noise ^ _shift_right(noise, 16)


def uniforms(key: Tensor, count: int) -> Tensor:
    """float32 [count] in [0, 1)."""
    hashes = mix(_hashes(count, 2) + key)
    return _shift_right(hashes, 8).float() * (1.0 / (1 << 24))


def drop_limit(rate: float) -> int:
    """The int32 below which a share `rate` of all int32 values lies."""
    return to_int32(round(rate * 2**32) - 2**31)


def kept_scale(rate: float) -> float:
    """The factor of what is kept where a share `rate` is dropped."""
    return 1.0 / (1.0 - rate)


def path_factors(
    key: Tensor, rates: tuple[float, ...], samples: int, shard: tuple[int, int] = _ALONE, dropout: float = 0.0
) -> Tensor:
    """Factors of the residual branches: float32 [layers, samples], 0 with the layer's rate, otherwise 1 / (1 - rate),
    by a hash of (key, layer, sample). They include the 1 / (1 - dropout) that the last `Dropout` leaves out."""
    return draw_noise(key, (samples, 1, 1), rates, dropout, shard)[1]


@ops.constexpr
@cache
def _limits_and_scales(rates: tuple[float, ...], dropout: float) -> tuple[Tensor, Tensor]:
    """[layers, 1] each."""
    limits = Tensor([[drop_limit(rate)] for rate in rates], ms.int32)
    return limits, Tensor([[kept_scale(rate) * kept_scale(dropout)] for rate in rates], ms.float32)


def draw_noise(
    key: Tensor, shape: tuple[int, int, int], rates: tuple[float, ...], dropout: float, shard: tuple[int, int] = _ALONE
) -> Noise:
    """Draw the noise of a forward pass over [N, T, C]: that of `position_noise` and `path_factors`, by one hash of the
    key."""
    offsets, of_samples, limits, scales, columns = noise_constants(shape, rates, dropout, shard)
    rows, hashes = shape[0] * shape[1], mix(offsets + key)
    noise = _noise(hashes[:rows], columns).reshape(shape)
    paths = mix(of_samples.unsqueeze(0) + hashes[rows:].unsqueeze(1))  # [layers, N]
    return ops.stop_gradient(noise), ops.stop_gradient(ops.where(paths >= limits, scales, 0.0))


def noise_constants(
    shape: tuple[int, int, int], rates: tuple[float, ...], dropout: float, shard: tuple[int, int] = _ALONE
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `draw_noise` hashes with the key: offsets of rows, then of layers, int32 [N * T + layers]; those of samples,
    int32 [N]; limits and scales of the layers, [layers, 1] each; hashes that columns start from, int32 [C]."""
    samples, tokens, width = shape
    limits, scales = _limits_and_scales(rates, dropout)
    return (_starts(samples * tokens, shard, len(rates)), _starts(samples, shard), limits, scales, _hashes(width, 1))
