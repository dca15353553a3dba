"""Twin of `ms_vireid.models.mun`, whose docstrings hold here."""

from pathlib import Path

import torch
from torch import Tensor

from torch_ref.models.auxiliary_generator import SCALE_RANGE
from torch_ref.models.base import ReIDModel, TrainingOutputs
from torch_ref.models.intermediate import AuxiliaryModality, MixedModality, SyncreticModality, XModality
from torch_ref.models.layers import GeM, bn_neck, identity_classifier, l2_normalise
from torch_ref.models.pretrained import load_pretrained_resnet
from torch_ref.models.prototypes import ModalityPrototypes
from torch_ref.models.resnet import EXPANSION, STAGES, ResNet

SPECIFIC = {"layer1": (1,), "stem": ()}  # stages of each modality's own beginning, which always has the stem


class MUN(ReIDModel):
    def __init__(
        self,
        num_classes: int,
        batch: tuple[int, int] = (8, 4),
        layers: tuple[int, int, int, int] = (3, 4, 6, 3),
        width: int = 64,
        last_stride: int = 1,
        specific: str = "layer1",
        intermediate: str = "auxiliary",
        expansion: int = 4,
        kernel_order: tuple[int, int] = (5, 7),
        ratios: tuple[int, ...] = (2, 4, 6, 12),
        layer_scale: str = "channel",
        mixing: str = "picture",
        memory: str = "slots",
        beta: tuple[float, float] = (1e-8, 1.0),
        auxiliary_classifier: bool = False,
        pooling_power: float = 3.0,
        inference: bool = False,
        recompute: bool = False,  # as its twin is called; nothing is recomputed here
    ):
        super().__init__()
        if specific not in SPECIFIC:
            raise ValueError(f"specific must be one of {', '.join(SPECIFIC)}, not {specific!r}")
        own = SPECIFIC[specific]
        self.inference = inference
        self.embed_dim = EXPANSION * width * 8

        def first_stage() -> ResNet:
            return ResNet(layers, width, last_stride, stages=own)

        self.visible_stage = first_stage()
        self.infrared_stage = first_stage()
        self.shared = ResNet(layers, width, last_stride, stem=False, stages=STAGES[len(own) :])
        self.pool = GeM(pooling_power, eps=1e-12)
        self.bottleneck = bn_neck(self.embed_dim)
        self.visible_classifier = identity_classifier(self.embed_dim, num_classes)
        self.infrared_classifier = identity_classifier(self.embed_dim, num_classes)

        makers = {
            "auxiliary": lambda: AuxiliaryModality(
                EXPANSION * width if own else width, expansion, kernel_order, ratios, layer_scale
            ),
            "X": lambda: XModality(first_stage()),
            "mixed": lambda: MixedModality(first_stage(), mixing),
            "syncretic": lambda: SyncreticModality(first_stage()),
            "none": lambda: None,
        }
        if intermediate not in makers:
            raise ValueError(f"intermediate must be one of {', '.join(makers)}, not {intermediate!r}")
        self.generator = None if inference else makers[intermediate]()
        self.prototypes = self.auxiliary_classifier = None
        if self.generator is None:
            return
        if memory != "none":
            self.prototypes = ModalityPrototypes(*batch, self.embed_dim, memory, num_classes)
            self.beta_range = beta
        if auxiliary_classifier:
            self.auxiliary_classifier = identity_classifier(self.embed_dim, num_classes)

    def forward(
        self,
        images: Tensor,
        modality: str | None = None,
        key: Tensor | None = None,
        labels: Tensor | None = None,
        progress: Tensor | float = 0.0,
    ) -> Tensor | TrainingOutputs:
        if not self.training:
            return l2_normalise(self.bottleneck(self.pool(self.shared(self._first_stage(images, modality)))))
        if self.inference:
            raise ValueError("an inference model has no auxiliary modality to be trained with")
        half = images.shape[0] // 2
        if images.shape[0] != 2 * half:
            raise ValueError(f"a training batch has as many visible as infrared images, not {images.shape[0]}")
        pictures = images[:half], images[half:]  # [PK, 3, 288, 144] each
        maps = self.visible_stage(pictures[0]), self.infrared_stage(pictures[1])  # v and r, [PK, 256, 72, 36] each
        if self.generator is not None:
            maps += (self.generator(pictures, maps, key),)  # a = G(v, r): row i of all three is of one identity
        pooled = self.pool(self.shared(torch.cat(maps, dim=0)))  # [3PK, 2048, 18, 9] -> [3PK, embed_dim]
        normalised = self.bottleneck(pooled)  # [3PK, embed_dim]
        visible_logits, infrared_logits = self.visible_classifier(normalised), self.infrared_classifier(normalised)
        logits = torch.cat((visible_logits[:half], infrared_logits[half : 2 * half]), dim=0)
        if self.generator is None:
            return TrainingOutputs(logits, pooled, normalised)
        prototypes = self._prototypes(pooled, half, labels, progress)
        auxiliary_logits = None
        if self.auxiliary_classifier is not None:
            auxiliary_logits = self.auxiliary_classifier(normalised[2 * half :])
        return TrainingOutputs(
            logits=logits,
            pooled=pooled[: 2 * half],
            bnneck=normalised[: 2 * half],
            visible=pooled[:half],
            infrared=pooled[half : 2 * half],
            auxiliary=pooled[2 * half :],
            visible_logits=visible_logits[2 * half :],
            infrared_logits=infrared_logits[2 * half :],
            visible_prototypes=prototypes[0],
            infrared_prototypes=prototypes[1],
            auxiliary_prototypes=prototypes[2],
            auxiliary_logits=auxiliary_logits,
        )

    def _first_stage(self, images: Tensor, modality: str | None) -> Tensor:
        if modality == "visible":
            return self.visible_stage(images)
        if modality == "infrared":
            return self.infrared_stage(images)
        raise ValueError(f"modality must be visible or infrared, not {modality!r}")

    def _prototypes(self, pooled: Tensor, half: int, labels: Tensor | None, progress: Tensor | float) -> Tensor:
        pooled = pooled.reshape(3, half, self.embed_dim)
        if self.prototypes is None:
            return pooled
        first, last = self.beta_range
        beta = first + (last - first) * progress
        return self.prototypes(pooled, beta, None if labels is None else labels[:half])

    def in_backbone(self, name: str) -> bool:
        return name.startswith(("visible_stage.", "infrared_stage.", "shared.", "generator.stage."))

    def limits_of(self, name: str) -> tuple[float, float] | None:
        return SCALE_RANGE if name.endswith(".scale") else None

    def load_pretrained(self, path: Path) -> None:
        own = getattr(self.generator, "stage", None)
        parts = self.visible_stage, self.infrared_stage, self.shared
        load_pretrained_resnet(parts if own is None else (*parts, own), path)
