"""Twin of `ms_vireid.models.mun`, whose docstrings hold here."""

import torch
from torch import Tensor

from ms_vireid.checkpoints.pretrained import Pretrained
from ms_vireid.config import MUNConfig, Setting
from torch_ref.models import base
from torch_ref.models.auxiliary_generator import SCALE_RANGE
from torch_ref.models.base import ReIDModel, TrainingOutputs
from torch_ref.models.intermediate import PixelModality, intermediate_modality
from torch_ref.models.layers import GeM, bn_neck, identity_classifier, l2_normalise
from torch_ref.models.pretrained import load_backbone
from torch_ref.models.prototypes import ModalityPrototypes
from torch_ref.models.resnet import EXPANSION, STAGES, ResNet


class MUN(ReIDModel):
    TRAINING_ONLY = ("generator.", "prototypes.", "auxiliary_classifier.")
    MEMORIES = ("prototypes.memory", "prototypes.seen")
    OF_IDENTITIES = ("visible_classifier.", "infrared_classifier.", "auxiliary_classifier.", *MEMORIES)

    def __init__(self, config: MUNConfig, num_classes: int, setting: Setting = Setting()):
        super().__init__()
        self.classified = config.classified
        self.tested = config.tested
        self.separate = config.batch_norm == "each"
        self.beta = config.beta
        self.parts = setting.parts
        self.inference = setting.inference
        self.embed_dim = EXPANSION * config.width * 8
        shape = config.layers, config.width, config.last_stride
        specific = (1,) if config.specific == "layer1" else ()  # stages that each modality has besides its stem

        def first_stage() -> ResNet:
            return ResNet(*shape, stages=specific)

        self.visible_stage = first_stage()
        self.infrared_stage = first_stage()
        self.shared = ResNet(*shape, stem=False, stages=STAGES[len(specific) :])
        self.pool = GeM(config.pooling_power, eps=1e-12, learned=config.pooling_learned)
        self.bottleneck = bn_neck(self.embed_dim)
        self.visible_classifier = identity_classifier(self.embed_dim, num_classes)
        self.infrared_classifier = identity_classifier(self.embed_dim, num_classes)
        self.generator = self.prototypes = self.auxiliary_classifier = None
        if not setting.inference:
            self.generator = intermediate_modality(config, first_stage)
        if self.generator is not None:
            if "ma" in setting.terms and config.memory != "none":
                self.prototypes = ModalityPrototypes(*setting.batch, self.embed_dim, config.memory, num_classes)
            if "id_a" in setting.terms:
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
            return self._tested(self.pooled(images, modality))
        if self.inference:
            raise ValueError("an inference model has no auxiliary modality to be trained with")
        pooled, normalised = self.pooled_and_normalised(images, key)  # of v, r and a, [3PK, embed_dim] each
        rows = images.shape[0] // self.parts  # PK
        classified = normalised if self.classified == "bnneck" else pooled
        visible_logits, infrared_logits = self.visible_classifier(classified), self.infrared_classifier(classified)
        # Of v, r and a each.
        of_visible, of_infrared = in_parts(visible_logits, rows), in_parts(infrared_logits, rows)
        last = self.parts - 1  # r's part
        logits = torch.cat((*of_visible[:last], of_infrared[last]), dim=0)
        if self.generator is None:
            return TrainingOutputs(logits, pooled, normalised)
        prototypes = self._prototypes(pooled, rows, labels, progress)
        auxiliary_logits = None
        if self.auxiliary_classifier is not None:
            auxiliary_logits = self.auxiliary_classifier(classified[images.shape[0] :])
        features = in_parts(pooled, rows)
        return TrainingOutputs(
            logits=logits,
            pooled=pooled[: images.shape[0]],
            bnneck=normalised[: images.shape[0]],
            visible=features[0],
            infrared=features[last],
            auxiliary=features[-1],
            visible_logits=of_visible[-1],
            infrared_logits=of_infrared[-1],
            visible_prototypes=prototypes[0],
            infrared_prototypes=prototypes[1],
            auxiliary_prototypes=prototypes[2],
            auxiliary_logits=auxiliary_logits,
        )

    def pooled_and_normalised(self, images: Tensor, key: Tensor | None) -> tuple[Tensor, Tensor]:
        pictures = base.by_modality(images, self.parts)  # [PK, 3, 288, 144] each, [2PK, ...] of two versions
        rows = pictures[1].shape[0]  # PK
        visible, infrared = self.visible_stage(pictures[0]), self.infrared_stage(pictures[1])
        maps = (*in_parts(visible, rows), infrared)  # v, in one version or two, and r, [PK, 256, 72, 36] each
        if self.generator is not None:
            pictures = in_parts(pictures[0], rows)[0], pictures[1]
            # a = G(v, r): row i of all three is of one identity
            maps += (self.generator(pictures, (maps[0], infrared), key),)
        return self.features(maps)  # [3PK, 2048, 18, 9] -> [3PK, embed_dim]

    def features(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        if not self.separate:
            pooled = self.pool(self.shared(torch.cat(maps, dim=0)))
            return pooled, self.bottleneck(pooled)
        visible = self.parts - 1  # versions, which are one modality
        modalities = (maps[0] if visible == 1 else torch.cat(maps[:visible], dim=0), *maps[visible:])
        pooled, normalised = (), ()
        for modality in modalities:
            features = self.pool(self.shared(modality))
            pooled += in_parts(features, maps[0].shape[0])
            normalised += in_parts(self.bottleneck(features), maps[0].shape[0])
        return torch.cat(pooled, dim=0), torch.cat(normalised, dim=0)

    def pooled(self, images: Tensor, modality: str | None) -> Tensor:
        return self.pool(self.shared(self.stage_of(modality)(images)))

    def _tested(self, pooled: Tensor) -> Tensor:
        return l2_normalise(self.bottleneck(pooled) if self.tested == "bnneck" else pooled)

    def stage_of(self, modality: str | None) -> ResNet:
        if modality == "visible":
            return self.visible_stage
        if modality == "infrared":
            return self.infrared_stage
        raise ValueError(f"modality must be visible or infrared, not {modality!r}")

    def _prototypes(self, pooled: Tensor, rows: int, labels: Tensor | None, progress: Tensor | float) -> Tensor:
        if self.parts == 3:
            pooled = torch.cat((pooled[:rows], pooled[2 * rows : 3 * rows], pooled[3 * rows :]), dim=0)
        pooled = pooled.reshape(3, rows, self.embed_dim)
        if self.prototypes is None:
            return pooled
        first, last = self.beta
        beta = first + (last - first) * progress
        return self.prototypes(pooled, beta, None if labels is None else labels[:rows])

    def in_backbone(self, name: str) -> bool:
        return name.startswith(("visible_stage.", "infrared_stage.", "shared.", "generator.stage."))

    def limits_of(self, name: str) -> tuple[float, float] | None:
        return SCALE_RANGE if name.endswith(".scale") else None

    def load_pretrained(self, file: Pretrained) -> None:
        networks = [self.visible_stage, self.infrared_stage, self.shared]
        if isinstance(self.generator, PixelModality):
            networks.append(self.generator.stage)
        load_backbone(networks, file, "ResNet")


def in_parts(rows: Tensor, count: int) -> tuple[Tensor, ...]:
    return rows.split(count)
