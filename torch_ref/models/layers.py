"""Twin of `ms_vireid.models.layers`, whose docstrings hold here."""

import math

import torch
from torch import Tensor, nn


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
    return _shift_right(_numbered(key, count), 8).float() * (1.0 / (1 << 24))


def _numbered(key: Tensor, count: int) -> Tensor:
    return mix(mix(_spread(count, key) + 2) + key)


def _drop_limit(rate: float) -> int:
    return to_int32(round(rate * 2**32) - 2**31)


def _kept_scale(rate: float) -> float:
    return 1.0 / (1.0 - rate)


def path_factors(key: Tensor, rates: tuple[float, ...], samples: int, dropout: float = 0.0) -> Tensor:
    layer = mix(_spread(len(rates), key) + _GOLDEN + key)
    noise = mix(_spread(samples, key).unsqueeze(0) + layer.unsqueeze(1))
    limits = torch.tensor([[_drop_limit(rate)] for rate in rates], dtype=torch.int32, device=key.device)
    kept = [[_kept_scale(rate) * _kept_scale(dropout)] for rate in rates]
    scales = torch.tensor(kept, dtype=torch.float32, device=key.device)
    return (noise >= limits).float() * scales


def step_noise(
    key: Tensor, positions: tuple[int, int], rates: tuple[float, ...], samples: int, dropout: float
) -> tuple[Tensor, Tensor]:
    return position_noise(key, *positions), path_factors(key, rates, samples, dropout)


def check_rate(rate: float, name: str) -> None:
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {rate}")


class Dropout(nn.Module):
    def __init__(self, rate: float, layer: int, parts: int = 1, scaled: bool = True):
        super().__init__()
        check_rate(rate, "dropout")
        self.rate = rate
        self.limit = _drop_limit(rate)
        self.numbers = mask_numbers(layer, parts)
        self.scale = _kept_scale(rate) if scaled else 1.0

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        dropped = torch.stack([noise * number < self.limit for number in self.numbers], -2)  # [..., parts, C]
        return x.masked_fill(dropped.reshape(x.shape), 0.0) * self.scale


class DropPath(nn.Module):
    def __init__(self, rate: float, layer: int, dropout: float = 0.0):
        super().__init__()
        check_rate(rate, "drop_path")
        self.changes = rate > 0.0 or dropout > 0.0
        self.rate = rate
        self.layer = layer

    def forward(self, x: Tensor, factors: Tensor | None) -> Tensor:
        if not self.training or not self.changes:
            return x
        return x * factors[self.layer].to(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))


GEM_MIN = 1e-6  # inputs are clamped: d/dp contains log x


class GeM(nn.Module):
    def __init__(self, power: float = 3.0, eps: float = 1e-12, learned: bool = False):
        super().__init__()
        if power <= 0:
            raise ValueError(f"power must be above 0, got {power}")
        self.power = nn.Parameter(torch.tensor([power])) if learned else power
        self.eps = eps
        self.learned = learned

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if not self.learned:
            return (x.pow(self.power).mean((2, 3)) + self.eps).pow(1.0 / self.power)
        power = self.trained_power()
        return (x.clamp(min=GEM_MIN).pow(power).mean((2, 3)) + self.eps).pow(1.0 / power)

    def trained_power(self) -> Tensor:
        return self.power.clamp(min=0.01)


def bn_neck(features: int, spread: float = 0.0) -> nn.BatchNorm1d:
    # PyTorch's momentum weighs the new statistics: 0.1 here is MindSpore's 0.9.
    bottleneck = nn.BatchNorm1d(features, eps=1e-5, momentum=0.1)
    if spread:
        nn.init.normal_(bottleneck.weight, 1.0, spread)
    bottleneck.bias.requires_grad_(False)
    return bottleneck


def pointwise(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 1, stride=1, padding=0, bias=bias)
    bound = 1.0 / math.sqrt(inputs)
    nn.init.uniform_(layer.weight, -bound, bound)
    if bias:
        nn.init.uniform_(layer.bias, -bound, bound)
    return layer


def identity_classifier(features: int, num_classes: int) -> nn.Linear:
    classifier = nn.Linear(features, num_classes, bias=False)
    nn.init.normal_(classifier.weight, std=0.001)
    return classifier


def l2_normalise(x: Tensor) -> Tensor:
    length = torch.sqrt((x * x).sum(1, keepdim=True))
    return x / length.clamp(min=1e-12)
