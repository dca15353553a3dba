"""Twin of `ms_vireid.models.agw`, whose docstrings hold here."""

import torch
from torch import Tensor, nn

from ms_vireid.checkpoints.pretrained import Pretrained
from ms_vireid.config import AGWConfig, Setting
from torch_ref.models import base
from torch_ref.models.base import ReIDModel, TrainingOutputs
from torch_ref.models.layers import GeM, bn_neck, identity_classifier, l2_normalise, pointwise
from torch_ref.models.pretrained import load_backbone
from torch_ref.models.resnet import EXPANSION, STAGES, ResNet, batch_norm


class NonLocal(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.width = width
        self.g = pointwise(channels, width)
        self.theta = pointwise(channels, width)
        self.phi = pointwise(channels, width)
        self.W = nn.Sequential(pointwise(width, channels), batch_norm(channels, weight=0.0))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, rows, columns = x.shape
        flat = (batch, self.width, rows * columns)
        g, theta, phi = self.g(x).reshape(flat), self.theta(x).reshape(flat), self.phi(x).reshape(flat)
        context = g @ phi.transpose(1, 2) / (rows * columns)  # [N, width, width]
        y = context @ theta  # [N, width, L]
        return self.W(y.reshape(batch, self.width, rows, columns)) + x


class AGW(ReIDModel):
    def __init__(self, config: AGWConfig, num_classes: int, setting: Setting = Setting()):
        super().__init__()
        self.parts = setting.parts
        self.embed_dim = EXPANSION * config.width * 8
        shape = config.layers, config.width, config.last_stride
        self.visible_stem = ResNet(*shape, stages=())
        self.infrared_stem = ResNet(*shape, stages=())
        self.base = ResNet(*shape, stem=False)
        shared = []  # the blocks of the base in order, each with the non-local block that follows it
        for stage, blocks, count in zip(STAGES, config.layers, config.non_local, strict=True):
            channels = EXPANSION * config.width * 2 ** (stage - 1)
            width = config.non_local_width or channels // 2
            attention = nn.ModuleList([NonLocal(channels, width) for _ in range(count)])
            if count:
                setattr(self, f"non_local_{stage}", attention)
            for i, block in enumerate(getattr(self.base, f"layer{stage}")):
                shared += [block, attention[i - blocks + count]] if i >= blocks - count else [block]
        self.shared = tuple(shared)
        self.pool = GeM(config.pooling_power, eps=1e-12)
        self.bottleneck = bn_neck(self.embed_dim, spread=0.01)  # as released
        self.classifier = identity_classifier(self.embed_dim, num_classes)

    def forward(
        self,
        images: Tensor,
        modality: str | None = None,
        key: Tensor | None = None,
        labels: Tensor | None = None,
        progress: Tensor | float = 0.0,
    ) -> Tensor | TrainingOutputs:
        features = self.pooled(images, modality)  # [N, embed_dim]
        normalised = self.bottleneck(features)  # [N, embed_dim]
        if self.training:
            return TrainingOutputs(self.classifier(normalised), features, normalised)
        return l2_normalise(normalised)

    def pooled(self, images: Tensor, modality: str | None) -> Tensor:
        if self.training:
            visible, infrared = base.by_modality(images, self.parts)
            x = torch.cat((self.visible_stem(visible), self.infrared_stem(infrared)), dim=0)
        else:
            x = self.stem_of(modality)(images)  # 288x144 pixels: [N, 64, 72, 36]
        return self.pool(self.shared_blocks(x))

    def shared_blocks(self, x: Tensor) -> Tensor:
        for block in self.shared:
            x = block(x)
        return x

    def stem_of(self, modality: str | None) -> ResNet:
        if modality == "visible":
            return self.visible_stem
        if modality == "infrared":
            return self.infrared_stem
        raise ValueError(f"modality must be visible or infrared, not {modality!r}")

    def in_backbone(self, name: str) -> bool:
        return not name.startswith(("bottleneck.", "classifier."))

    def load_pretrained(self, file: Pretrained) -> None:
        load_backbone((self.visible_stem, self.infrared_stem, self.base), file, "ResNet")
