"""Modality Unifying Network (MUN, ICCV 2023): a ResNet-50 with an auxiliary modality between visible and infrared."""

from pathlib import Path

from mindspore import Parameter, Tensor, nn, ops

from ms_vireid.models.auxiliary_generator import SCALE_RANGE
from ms_vireid.models.base import ReIDModel
from ms_vireid.models.intermediate import AuxiliaryModality, MixedModality, SyncreticModality, XModality
from ms_vireid.models.layers import GeM, bn_neck, identity_classifier, l2_normalise
from ms_vireid.models.pretrained import load_pretrained_resnet
from ms_vireid.models.prototypes import ModalityPrototypes
from ms_vireid.models.resnet import EXPANSION, STAGES, ResNet, convolutions

SPECIFIC = {"layer1": (1,), "stem": ()}  # stages of each modality's own beginning, which always has the stem


class MUN(ReIDModel):
    """Section 3, Fig. 2: a first stage for each modality, the auxiliary modality made of both, and shared later stages.

    Only training has the auxiliary modality: its parts are left out with `inference`, and the rest of the parameters
    is the same.

    Where the paper is silent: all three modalities go through the shared stages and the BNNeck as one batch, so that
    BatchNorm normalises them together; classifiers take what the BNNeck gives, as in AGW, and have no bias; gradients
    pass from the auxiliary modality into both first stages.

    Args:
        num_classes: identities of the training set.
        batch: P and K, for which the prototypes are laid out.
        layers, width, last_stride: of `ResNet`.
        specific: how far each modality has its own weights: the stem and "layer1" ("two independent ResBlocks"), or
            the "stem" alone.
        intermediate: of Table 2, "auxiliary", "X", "mixed" or "syncretic", or "none" for the baseline B.
        expansion, kernel_order, ratios, layer_scale: of `AuxiliaryGenerator`.
        mixing: of `MixedModality`.
        memory: of `ModalityPrototypes`, "slots" or "identity", or "none": L_ma then compares pooled features (Table 3).
        beta: first and last updating ratio of the prototypes; it rises linearly with the iterations.
        auxiliary_classifier: C_a for the auxiliary features alone, which only L_id^a needs (Tables 1 and 5).
        pooling_power: p of `GeM`.
        inference: only what retrieval needs.
        recompute: keep nothing that a BatchNorm of feature maps takes in training, and compute it again.

    Raises:
        ValueError: an unknown choice.
    """

    TRAINING_ONLY = ("generator.", "prototypes.", "auxiliary_classifier.")

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
        recompute: bool = False,
    ):
        super().__init__()
        if specific not in SPECIFIC:
            raise ValueError(f"specific must be one of {', '.join(SPECIFIC)}, not {specific!r}")
        own = SPECIFIC[specific]
        self.inference = inference
        self.embed_dim = EXPANSION * width * 8

        def first_stage() -> ResNet:
            return ResNet(layers, width, last_stride, stages=own)

        self.concat = ops.Concat(0)
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
        if recompute:
            self.recomputed = convolutions(self.visible_stage, self.infrared_stage, self.shared)
            if self.generator is not None:
                self.recomputed += self.generator.recomputed
        self.prototypes = self.auxiliary_classifier = None
        if self.generator is None:
            return
        if memory != "none":
            self.prototypes = ModalityPrototypes(*batch, self.embed_dim, memory, num_classes)
            self.beta_range = beta
        if auxiliary_classifier:
            self.auxiliary_classifier = identity_classifier(self.embed_dim, num_classes)

    def construct(
        self,
        images: Tensor,
        modality: str | None = None,
        key: Tensor | None = None,
        labels: Tensor | None = None,
        progress: Tensor | float = 0.0,
    ) -> Tensor | tuple[Tensor, ...]:
        """
        Args:
            images: float32 [N, 3, H, W]; in training [2PK, 3, H, W], visible half first.
            modality: "visible" or "infrared", of all images, in evaluation; training takes both from the batch.
            key: int32 scalar, the step's key, for the mixed modality in training.
            labels: int32 [2PK], for the identity-indexed prototypes in training.
            progress: how far training is, 0 at its first step and 1 at its last, for the prototypes' beta.

        Returns:
            In training `TrainingOutputs`: logits are C_v of the visible half and C_r of the infrared one; the baseline
                (intermediate "none") has the first three; C_a is there with `auxiliary_classifier`; without memory the
                prototypes are the pooled features.
            In evaluation: features [N, embed_dim] after BNNeck, L2-normalised.

        Raises:
            ValueError: no modality, or another one, in evaluation; training with an inference model, with a batch that
                cannot be halved, or with images whose feature maps the generator cannot pool.
        """
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
        pooled = self.pool(self.shared(self.concat(maps)))  # [3PK, 2048, 18, 9] -> [3PK, embed_dim]
        normalised = self.bottleneck(pooled)  # [3PK, embed_dim]
        visible_logits, infrared_logits = self.visible_classifier(normalised), self.infrared_classifier(normalised)
        logits = self.concat((visible_logits[:half], infrared_logits[half : 2 * half]))
        if self.generator is None:
            return logits, pooled, normalised
        prototypes = self._prototypes(pooled, half, labels, progress)
        outputs = logits, pooled[: 2 * half], normalised[: 2 * half]
        outputs += pooled[:half], pooled[half : 2 * half], pooled[2 * half :]  # v, r and a
        outputs += visible_logits[2 * half :], infrared_logits[2 * half :]  # C_v(a) and C_r(a)
        outputs += prototypes[0], prototypes[1], prototypes[2]
        if self.auxiliary_classifier is not None:
            outputs += (self.auxiliary_classifier(normalised[2 * half :]),)
        return outputs

    def _first_stage(self, images: Tensor, modality: str | None) -> Tensor:
        if modality == "visible":
            return self.visible_stage(images)
        if modality == "infrared":
            return self.infrared_stage(images)
        raise ValueError(f"modality must be visible or infrared, not {modality!r}")

    def _prototypes(self, pooled: Tensor, half: int, labels: Tensor | None, progress: Tensor | float) -> Tensor:
        """What L_ma compares, [3, PK, embed_dim], from the pooled features [3PK, embed_dim]."""
        pooled = pooled.reshape(3, half, self.embed_dim)
        if self.prototypes is None:
            return pooled
        first, last = self.beta_range
        beta = first + (last - first) * progress
        return self.prototypes(pooled, beta, None if labels is None else labels[:half])

    def memories(self) -> list[Parameter]:
        return [] if self.prototypes is None else self.prototypes.memories()

    def path(self, modality: str) -> tuple[nn.Cell, ...]:
        return self.first_map(modality), self.shared, self.pool, self.bottleneck

    def classifier_of(self, modality: str) -> nn.Cell:
        return self.visible_classifier if modality == "visible" else self.infrared_classifier

    def first_map(self, modality: str) -> nn.Cell:
        """The modality's own stage."""
        return self.visible_stage if modality == "visible" else self.infrared_stage

    def last_map(self) -> nn.Cell:
        return self.shared

    def has_auxiliary(self) -> bool:
        return self.generator is not None

    def auxiliary_maps(self, pictures: tuple[Tensor, Tensor], maps: tuple[Tensor, Tensor], key: Tensor) -> Tensor:
        return self.generator(pictures, maps, key)

    def auxiliary_features(self, pictures: tuple[Tensor, Tensor], key: Tensor) -> Tensor:
        maps = self.visible_stage(pictures[0]), self.infrared_stage(pictures[1])
        made = self.generator(pictures, maps, key)
        return l2_normalise(self.bottleneck(self.pool(self.shared(made))))

    def in_backbone(self, name: str) -> bool:
        """What ImageNet weights can initialise."""
        return name.startswith(("visible_stage.", "infrared_stage.", "shared.", "generator.stage."))

    def limits_of(self, name: str) -> tuple[float, float] | None:
        return SCALE_RANGE if name.endswith(".scale") else None

    def load_pretrained(self, path: Path) -> None:
        """All first stages begin alike, also one of a modality made of pixels."""
        own = getattr(self.generator, "stage", None)
        parts = self.visible_stage, self.infrared_stage, self.shared
        load_pretrained_resnet(parts if own is None else (*parts, own), path)
