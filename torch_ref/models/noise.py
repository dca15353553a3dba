"""Twin of `ms_vireid.models.noise`, whose docstrings hold here."""

import torch
from torch import Tensor

Noise = tuple[Tensor, Tensor]


def to_int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


_GOLDEN = to_int32(0x9E3779B9)  # 2**32 / golden ratio: spreads consecutive integers over 32 bits
_FIRST, _SECOND = to_int32(0x85EBCA6B), to_int32(0xC2B2AE35)  # MurmurHash3's
_MULTIPLIER = 0xADB4A92D  # of a generator modulo 2**32 with a good spectrum (Steele & Vigna 2021)
_PART = 101  # how far apart the powers for an activation's parts are: more than a model has masks of the noise's width


def mask_number(layer: int, part: int = 0) -> int:
    return to_int32(pow(_MULTIPLIER, layer + part * _PART, 1 << 32))


def mask_numbers(layer: int, parts: int) -> list[int]:
    return [mask_number(layer, part) for part in (range(1, parts + 1) if parts > 1 else [0])]


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 16)) * _FIRST
    x = (x ^ _shift_right(x, 13)) * _SECOND
    return x ^ _shift_right(x, 16)


def _spread(count: int, key: Tensor) -> Tensor:
    """int32 [count]: 0, 1, 2 ... spread over 32 bits, on the key's device."""
    return torch.arange(count, dtype=torch.int32, device=key.device) * _GOLDEN


def position_noise(key: Tensor, rows: int, columns: int) -> Tensor:
    row = mix(_spread(rows, key) + key)
    column = mix(_spread(columns, key) + 1)
    noise = (row.reshape(rows, 1) + column.reshape(1, columns)) * _FIRST
    noise = (noise ^ _shift_right(noise, 15)) * _SECOND
    return noise ^ _shift_right(noise, 16)


def uniforms(key: Tensor, count: int) -> Tensor:
    hashes = mix(mix(_spread(count, key) + 2) + key)
    return _shift_right(hashes, 8).float() * (1.0 / (1 << 24))


def drop_limit(rate: float) -> int:
    return to_int32(round(rate * 2**32) - 2**31)


def kept_scale(rate: float) -> float:
    return 1.0 / (1.0 - rate)


def path_factors(key: Tensor, rates: tuple[float, ...], samples: int, dropout: float = 0.0) -> Tensor:
    layer = mix(_spread(len(rates), key) + _GOLDEN + key)
    noise = mix(_spread(samples, key).unsqueeze(0) + layer.unsqueeze(1))
    limits = torch.tensor([[drop_limit(rate)] for rate in rates], dtype=torch.int32, device=key.device)
    kept = [[kept_scale(rate) * kept_scale(dropout)] for rate in rates]
    scales = torch.tensor(kept, dtype=torch.float32, device=key.device)
    return (noise >= limits).float() * scales


def draw_noise(key: Tensor, shape: tuple[int, int, int], rates: tuple[float, ...], dropout: float) -> Noise:
    samples, tokens, width = shape
    positions = position_noise(key, samples * tokens, width).reshape(shape)
    return positions, path_factors(key, rates, samples, dropout)
