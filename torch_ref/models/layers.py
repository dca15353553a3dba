"""Twin of `ms_vireid.models.layers`, whose docstrings hold here."""

import math
import sys

import torch
from torch import Tensor, nn

from ms_vireid.command.arguments import number
from torch_ref.models.noise import Noise, drop_limit, kept_scale, mask_numbers


class Dropout(nn.Module):
    def __init__(self, rate: float, layer: int, parts: int = 1, scaled: bool = True):
        super().__init__()
        rate = number("dropout", rate, 0, below=1)
        self.rate = rate
        self.limit = drop_limit(rate)
        self.numbers = mask_numbers(layer, parts)
        self.scale = kept_scale(rate) if scaled else 1.0

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        dropped = torch.stack([noise[0] * number < self.limit for number in self.numbers], -2)  # [..., parts, C]
        return x.masked_fill(dropped.reshape(x.shape), 0.0) * self.scale


class DropPath(nn.Module):
    def __init__(self, rate: float, layer: int, dropout: float = 0.0):
        super().__init__()
        rate = number("drop_path", rate, 0, below=1)
        self.changes = rate > 0.0 or dropout > 0.0
        self.rate = rate
        self.layer = layer

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        if not self.training or not self.changes:
            return x
        return x * noise[1][self.layer].to(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))


class LayerNorm(nn.LayerNorm):
    pass


GEM_MIN = 1e-6  # inputs are clamped: d/dp contains log x


class GeM(nn.Module):
    def __init__(self, power: float = 3.0, eps: float = 1e-12, learned: bool = False):
        super().__init__()
        power = number("power", power, sys.float_info.min)
        self.power = nn.Parameter(torch.tensor([power])) if learned else power
        self.eps = eps
        self.learned = learned

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        power = self.trained_power() if self.learned else self.power
        if self.learned:
            powers = raised(x.clamp(min=GEM_MIN), power)
        elif self.power == 3.0:
            powers = x * x * x
        else:
            powers = torch.where(x > 0, raised(torch.where(x > 0, x, 1.0), power), 0.0)
        return raised(powers.mean((2, 3)) + self.eps, 1.0 / power)

    def trained_power(self) -> Tensor:
        return self.power.clamp(min=0.01)


def raised(x: Tensor, power: Tensor | float) -> Tensor:
    return x.pow(power)


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
