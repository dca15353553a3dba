"""Twin of `ms_vireid.models.auxiliary_generator`, whose docstrings hold here."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ms_vireid.config.models import check_pooled
from torch_ref.models.layers import pointwise
from torch_ref.models.resnet import batch_norm

SCALE_RANGE = (1e-3, 1.0)  # of the layer scales: the paper's (0, 1] with an end that a weight can be clamped to


def depthwise(channels: int, kernel: int, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    layer = kind(channels, channels, kernel, stride=1, padding=kernel // 2, groups=channels, bias=False)
    nn.init.uniform_(layer.weight, -1.0 / kernel, 1.0 / kernel)
    return layer


class ResidualDepthwise(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.relu(x)) + x


class Concatenation(nn.Module):
    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, dim=1)


def transposed(channels: int, ratio: int) -> nn.ConvTranspose2d:
    layer = nn.ConvTranspose2d(channels, channels, ratio, stride=ratio, padding=0, bias=False)
    bound = 1.0 / (ratio * math.sqrt(channels))
    nn.init.uniform_(layer.weight, -bound, bound)
    return layer


def _layer_scale(channels: int, kind: str) -> nn.Parameter:
    return nn.Parameter(torch.ones(1, channels if kind == "channel" else 1, 1, 1))


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Feature maps [N, C, H, W] -> two of [N, C / 2, H, W]."""
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


def scaled(scale: nn.Parameter, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of x [N, C, H, W], times a layer scale."""
    return scale * layer(x)


class IntraModalityLearner(nn.Module):
    def __init__(
        self, channels: int, expansion: int = 4, kernel_order: tuple[int, int] = (5, 7), layer_scale: str = "channel"
    ):
        super().__init__()
        first, second = kernel_order
        self.first = depthwise(channels // 2, first)
        self.second = depthwise(channels // 2, second)
        self.bn1 = batch_norm(channels)
        self.expand = pointwise(channels, expansion * channels, bias=False)
        self.spatial = depthwise(expansion * channels, 3, ResidualDepthwise)
        self.bn2 = batch_norm(expansion * channels)
        self.reduce = pointwise(expansion * channels, channels, bias=False)
        self.scale = _layer_scale(channels, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        first, second = halves(x)  # [N, C / 2, H, W] each, Eq. 1
        x = torch.cat((self.first(first), self.second(second)), dim=1)  # [N, C, H, W], Eq. 2
        x = self.expand(self.bn1(x))  # [N, 4C, H, W], Eq. 3
        x = self.spatial(x)  # [N, 4C, H, W], Eq. 4
        return scaled(self.scale, self.reduce, self.bn2(x))  # [N, C, H, W], Eq. 5


class CrossModalityLearner(nn.Module):
    def __init__(self, channels: int, ratios: tuple[int, ...] = (2, 4, 6, 12), layer_scale: str = "channel"):
        super().__init__()
        self.ratios = tuple(ratios)
        self.pools = nn.ModuleList(nn.AvgPool2d(ratio, stride=ratio, padding=0) for ratio in ratios)
        self.transposed = nn.ModuleList(transposed(channels, ratio) for ratio in ratios)
        self.concat = Concatenation()
        self.bn = batch_norm(2 * len(ratios) * channels)
        self.fuse = pointwise(2 * len(ratios) * channels, channels, bias=False)
        self.scale = _layer_scale(channels, layer_scale)

    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        check_pooled(visible.shape[2], visible.shape[3], self.ratios)
        scales = []
        for features in (visible, infrared):
            for pool, rebuild in zip(self.pools, self.transposed, strict=True):
                pyramid = pool(features)  # [N, C, H / ratio, W / ratio], Eq. 6
                scales.append(rebuild(pyramid))  # [N, C, H, W], Eq. 7
        x = self.concat(*scales)  # [N, 8C, H, W], Eq. 8
        return scaled(self.scale, self.fuse, self.bn(x))  # [N, C, H, W], Eq. 9


class AuxiliaryGenerator(nn.Module):
    def __init__(
        self,
        channels: int,
        expansion: int = 4,
        kernel_order: tuple[int, int] = (5, 7),
        ratios: tuple[int, ...] = (2, 4, 6, 12),
        layer_scale: str = "channel",
    ):
        super().__init__()
        self.visible_learner = IntraModalityLearner(channels, expansion, kernel_order, layer_scale)
        self.infrared_learner = IntraModalityLearner(channels, expansion, kernel_order, layer_scale)
        self.cross_learner = CrossModalityLearner(channels, ratios, layer_scale)

    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        return self.cross_learner(self.visible_learner(visible), self.infrared_learner(infrared))
