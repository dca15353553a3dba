"""Modality Unifying Network (MUN, ICCV 2023): a ResNet-50 with an auxiliary modality between visible and infrared."""

from collections.abc import Callable

from mindspore import Tensor, nn, ops

from ms_vireid.checkpoints.pretrained import Pretrained
from ms_vireid.config import MUNConfig, Setting
from ms_vireid.models import base
from ms_vireid.models.auxiliary_generator import SCALE_RANGE
from ms_vireid.models.base import ReIDModel
from ms_vireid.models.intermediate import PixelModality, intermediate_modality
from ms_vireid.models.layers import GeM, bn_neck, identity_classifier, l2_normalise
from ms_vireid.models.pretrained import load_backbone
from ms_vireid.models.prototypes import ModalityPrototypes
from ms_vireid.models.resnet import EXPANSION, STAGES, ResNet
from ms_vireid.replaceable import replaceable


class MUN(ReIDModel):
    """Section 3, Fig. 2: a first stage for each modality, the auxiliary modality made of both, and shared later stages.

    Only training has the auxiliary modality: its parts are left out with `inference`, and the rest of the parameters
    is the same.

    Where the paper is silent: all three modalities go through the shared stages and the BNNeck as one batch, so that
    BatchNorm normalises them together; classifiers take what the BNNeck gives, as in AGW, and have no bias; gradients
    pass from the auxiliary modality into both first stages. Of visible pictures in two versions, the first is what the
    auxiliary modality is made of and compared with; both count as visible for L_id and L_tri.

    With `batch_norm` "each", every modality goes through the shared stages and the BNNeck by itself and is normalised
    by its own statistics; the running averages, by which all are tested, take v, r and a in turn. C_a classifies the
    auxiliary features alone, for L_id^a (Tables 1 and 5). Without memory L_ma compares pooled features (Table 3).

    num_classes: identities of the training set.
    """

    BACKBONE = ("visible_stage", "shared")
    TRAINING_ONLY = ("generator.", "prototypes.", "auxiliary_classifier.")
    MEMORIES = ("prototypes.memory", "prototypes.seen")
    OF_IDENTITIES = ("visible_classifier.", "infrared_classifier.", "auxiliary_classifier.", *MEMORIES)
    HEAD = ("pool.", "bottleneck.", "prototypes.", *OF_IDENTITIES)

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
        if setting.recompute:
            self.recomputed = ResNet.convolutions(self.visible_stage, self.infrared_stage, self.shared)
            if self.generator is not None:
                self.recomputed += self.generator.recomputed
        if self.generator is not None:
            if "ma" in setting.terms and config.memory != "none":
                self.prototypes = ModalityPrototypes(*setting.batch, self.embed_dim, config.memory, num_classes)
            if "id_a" in setting.terms:
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
            images: float32 [N, 3, H, W]; in training [parts PK, 3, H, W], visible ones first.
            modality: "visible" or "infrared", of all images, in evaluation; training takes both from the batch.
            key: int32 scalar, the step's key, for the mixed modality in training.
            labels: int32, of the images, for the identity-indexed prototypes in training.
            progress: of the prototypes' beta, from 0 to 1.

        Returns:
            In training `TrainingOutputs`: logits are C_v of the visible rows and C_r of the infrared ones; the baseline
                (intermediate "none") has the first three; without memory the prototypes are the pooled features.
            In evaluation: features [N, embed_dim], after BNNeck unless `tested` says otherwise, L2-normalised.

        Raises:
            ValueError: no modality, or another one, in evaluation; training with an inference model, with a batch that
                has no equal parts, or with images whose feature maps the generator cannot pool.
        """
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
        logits = ops.cat((*of_visible[:last], of_infrared[last]))
        if self.generator is None:
            return logits, pooled, normalised
        prototypes = self._prototypes(pooled, rows, labels, progress)
        features = in_parts(pooled, rows)
        pooled, bnneck = ops.cat(features[: self.parts]), normalised[: images.shape[0]]
        visible, infrared, auxiliary = features[0], features[last], features[-1]
        visible_logits, infrared_logits = of_visible[-1], of_infrared[-1]  # C_v(a) and C_r(a)
        prototypes = in_parts(prototypes.reshape(3 * rows, self.embed_dim), rows)  # of v, r and a
        outputs = logits, pooled, bnneck, visible, infrared, auxiliary, visible_logits, infrared_logits, *prototypes
        if self.auxiliary_classifier is None:
            return outputs
        return *outputs, self.auxiliary_classifier(classified[images.shape[0] :])  # auxiliary_logits

    @replaceable("cuda")
    def pooled_and_normalised(self, images: Tensor, key: Tensor | None) -> tuple[Tensor, Tensor]:
        """A training batch -> pooled features of v, r and a, before and after BNNeck, [3PK, embed_dim] each; arguments
        and errors are `construct`'s."""
        pictures = base.by_modality(images, self.parts)  # [PK, 3, 288, 144] each, [2PK, ...] of two versions
        rows = pictures[1].shape[0]  # PK
        visible, infrared = self.visible_stage(pictures[0]), self.infrared_stage(pictures[1])
        maps = (*in_parts(visible, rows), infrared)  # v, in one version or two, and r, [PK, 256, 72, 36] each
        if self.generator is not None:
            pictures = in_parts(pictures[0], rows)[0], pictures[1]
            # a = G(v, r): row i of all three is of one identity
            maps += (self.generator(pictures, (maps[0], infrared), key),)
        return self.features(maps)  # [3PK, 2048, 18, 9] -> [3PK, embed_dim]

    @replaceable("graph")
    def features(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """n maps [PK, C, H, W] -> pooled features before and after BNNeck, [n PK, embed_dim] each."""
        if not self.separate:
            pooled = self.pool(self.shared(ops.cat(maps)))
            return pooled, self.bottleneck(pooled)
        visible = self.parts - 1  # versions, which are one modality
        modalities = (maps[0] if visible == 1 else ops.cat(maps[:visible]), *maps[visible:])
        pooled, normalised = (), ()
        for modality in modalities:
            features = self.pool(self.shared(modality))
            pooled += in_parts(features, maps[0].shape[0])
            normalised += in_parts(self.bottleneck(features), maps[0].shape[0])
        return ops.cat(pooled), ops.cat(normalised)

    @replaceable("cuda")
    def pooled(self, images: Tensor, modality: str | None) -> Tensor:
        """Pictures in evaluation -> features before BNNeck, [N, embed_dim]; arguments and errors are `construct`'s."""
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
        """Pooled features [(parts + 1) PK, embed_dim] -> what L_ma compares, [3, PK, embed_dim]."""
        if self.parts == 3:
            pooled = ops.cat((pooled[:rows], pooled[2 * rows : 3 * rows], pooled[3 * rows :]))
        pooled = pooled.reshape(3, rows, self.embed_dim)
        if self.prototypes is None:
            return pooled
        first, last = self.beta
        beta = first + (last - first) * progress
        return self.prototypes(pooled, beta, None if labels is None else labels[:rows])

    def in_backbone(self, name: str) -> bool:
        """Everything that ImageNet weights can initialise."""
        return name.startswith(("visible_stage.", "infrared_stage.", "shared.", "generator.stage."))

    def limits_of(self, name: str) -> tuple[float, float] | None:
        return SCALE_RANGE if name.endswith(".scale") else None

    def load_pretrained(self, file: Pretrained) -> None:
        """All first stages get the same weights, also that of a modality made of pixels."""
        networks = [self.visible_stage, self.infrared_stage, self.shared]
        if isinstance(self.generator, PixelModality):
            networks.append(self.generator.stage)
        load_backbone(networks, file, "ResNet")

    def path(self, modality: str) -> tuple[nn.Cell, ...]:
        cells = getattr(self, f"{modality}_stage"), self.shared, self.pool
        return (*cells, self.bottleneck) if self.tested == "bnneck" else cells

    def logits_of(self, modality: str) -> tuple[nn.Cell, Callable[[Tensor], Tensor]]:
        classifier = getattr(self, f"{modality}_classifier")
        if self.classified == "pooled":
            return self.pool, classifier
        return self.pool, lambda pooled: classifier(self.bottleneck(pooled))

    def auxiliary_features(self, pictures: tuple[Tensor, Tensor], key: Tensor) -> Tensor:
        """Visible and infrared pictures, row by row of one identity, float32 [N, 3, H, W] each -> the features of the
        auxiliary modality, float32 [N, embed_dim], made as in training, normalised as in evaluation."""
        maps = self.visible_stage(pictures[0]), self.infrared_stage(pictures[1])
        return self._tested(self.pool(self.shared(self.generator(pictures, maps, key))))


@replaceable("cuda")
def in_parts(rows: Tensor, count: int) -> tuple[Tensor, ...]:
    """Split rows [n, ...] into parts of `count` rows; a single part is not sliced, which would copy it."""
    if rows.shape[0] == count:
        return (rows,)
    return tuple([rows[start : start + count] for start in range(0, rows.shape[0], count)])
