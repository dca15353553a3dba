"""Twin of `ms_vireid.models.intermediate`, whose docstrings hold here."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ms_vireid.config import MUNConfig
from torch_ref.models.auxiliary_generator import AuxiliaryGenerator
from torch_ref.models.layers import pointwise
from torch_ref.models.noise import position_noise, uniforms
from torch_ref.models.resnet import EXPANSION, ResNet


class AuxiliaryModality(AuxiliaryGenerator):
    def forward(self, pictures: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], key: Tensor | None) -> Tensor:
        return super().forward(*features)


class PixelModality(nn.Module):
    def __init__(self, stage: ResNet):
        super().__init__()
        self.stage = stage

    def forward(self, pictures: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], key: Tensor | None) -> Tensor:
        visible, infrared = pictures
        return self.stage(self.picture(visible, infrared, key))


class XModality(PixelModality):
    INPUTS = 3

    def __init__(self, stage: ResNet):
        super().__init__(stage)
        self.reduce = pointwise(self.INPUTS, 1)
        self.expand = pointwise(1, 3)

    def picture(self, visible: Tensor, infrared: Tensor, key: Tensor | None) -> Tensor:
        return self.expand(functional.relu(self.reduce(visible)))


class SyncreticModality(XModality):
    INPUTS = 6

    def picture(self, visible: Tensor, infrared: Tensor, key: Tensor | None) -> Tensor:
        both = torch.cat((visible, infrared), dim=1)  # [PK, 6, H, W]
        return super().picture(both, infrared, key)


class MixedModality(PixelModality):
    def __init__(self, stage: ResNet, mixing: str = "picture"):
        super().__init__(stage)
        self.by_pixel = mixing == "pixel"

    def picture(self, visible: Tensor, infrared: Tensor, key: Tensor | None) -> Tensor:
        if key is None:
            raise ValueError("the mixed modality needs the step's key")
        count, _, height, width = visible.shape
        if self.by_pixel:
            noise = position_noise(key, count, height * width).float()  # of all int32 values
            share = (noise * 2.0**-32 + 0.5).reshape(count, 1, height, width)
        else:
            share = uniforms(key, count).reshape(count, 1, 1, 1)
        return share * visible + (1.0 - share) * infrared


def intermediate_modality(config: MUNConfig, first_stage: Callable[[], ResNet]) -> nn.Module | None:
    if config.intermediate == "auxiliary":
        channels = EXPANSION * config.width if config.specific == "layer1" else config.width
        return AuxiliaryModality(channels, config.expansion, config.kernel_order, config.ratios, config.layer_scale)
    if config.intermediate == "X":
        return XModality(first_stage())
    if config.intermediate == "syncretic":
        return SyncreticModality(first_stage())
    if config.intermediate == "mixed":
        return MixedModality(first_stage(), config.mixing)
    return None
