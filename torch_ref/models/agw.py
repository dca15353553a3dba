"""Twin of `ms_vireid.models.agw`, whose docstrings hold here."""

from pathlib import Path

import torch
from torch import Tensor, nn

from torch_ref.models.base import ReIDModel, TrainingOutputs, visible_rows
from torch_ref.models.layers import GeM, bn_neck, identity_classifier, l2_normalise, pointwise
from torch_ref.models.pretrained import load_pretrained_resnet
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
    def __init__(
        self,
        num_classes: int,
        layers: tuple[int, int, int, int] = (3, 4, 6, 3),
        width: int = 64,
        last_stride: int = 1,
        non_local: tuple[int, int, int, int] = (0, 2, 3, 0),
        non_local_width: int | None = 1,
        pooling_power: float = 3.0,
        parts: int = 2,
        recompute: bool = False,  # as its twin is called; nothing is recomputed here
    ):
        super().__init__()
        if any(count > blocks for count, blocks in zip(non_local, layers, strict=True)):
            raise ValueError(f"non_local {non_local} exceeds the blocks of layers {layers}")
        self.parts = parts
        self.embed_dim = EXPANSION * width * 8
        self.visible_stem = ResNet(layers, width, last_stride, stages=())
        self.infrared_stem = ResNet(layers, width, last_stride, stages=())
        self.base = ResNet(layers, width, last_stride, stem=False)
        shared = []  # the blocks of the base in order, each with the non-local block that follows it
        for stage, blocks, count in zip(STAGES, layers, non_local, strict=True):
            channels = EXPANSION * width * 2 ** (stage - 1)
            attention = nn.ModuleList([NonLocal(channels, non_local_width or channels // 2) for _ in range(count)])
            if count:
                setattr(self, f"non_local_{stage}", attention)
            for i, block in enumerate(getattr(self.base, f"layer{stage}")):
                shared += [block, attention[i - blocks + count]] if i >= blocks - count else [block]
        self.shared = tuple(shared)
        self.pool = GeM(pooling_power, eps=1e-12)
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
        x = self._stems(images, modality)  # 288x144 pixels: [N, 64, 72, 36]
        for block in self.shared:
            x = block(x)
        features = self.pool(x)  # [N, embed_dim]
        normalised = self.bottleneck(features)  # [N, embed_dim]
        if self.training:
            return TrainingOutputs(self.classifier(normalised), features, normalised)
        return l2_normalise(normalised)

    def _stems(self, images: Tensor, modality: str | None) -> Tensor:
        if self.training:
            seen = visible_rows(images.shape[0], self.parts)
            return torch.cat((self.visible_stem(images[:seen]), self.infrared_stem(images[seen:])), dim=0)
        if modality == "visible":
            return self.visible_stem(images)
        if modality == "infrared":
            return self.infrared_stem(images)
        raise ValueError(f"modality must be visible or infrared, not {modality!r}")

    def in_backbone(self, name: str) -> bool:
        return not name.startswith(("bottleneck.", "classifier."))

    def load_pretrained(self, path: Path) -> None:
        load_pretrained_resnet((self.visible_stem, self.infrared_stem, self.base), path)
