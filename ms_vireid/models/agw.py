"""AGW (Ye et al., TPAMI 2021) for two modalities: the convolutional baseline of PMT's Table 4."""

from mindspore import Tensor, nn, ops

from ms_vireid.checkpoints.pretrained import Pretrained
from ms_vireid.config import AGWConfig, Setting
from ms_vireid.models import base
from ms_vireid.models.base import ReIDModel
from ms_vireid.models.layers import GeM, bn_neck, identity_classifier, l2_normalise, pointwise
from ms_vireid.models.pretrained import load_backbone
from ms_vireid.models.resnet import EXPANSION, STAGES, ResNet, batch_norm
from ms_vireid.replaceable import replaceable


class NonLocal(nn.Cell):
    """Non-local attention, z_i = W(y_i) + x_i with y_i = sum_j theta(x_i)^T phi(x_j) g(x_j) / L over all L positions.

    The dot product is divided by L where others take a softmax, so the sum over j comes first: no LxL map is made.
    W ends in a BatchNorm whose scale starts at 0, so that z = x before training.

    channels: of x. width: of theta, phi and g. 1 as first released; the paper's formula suggests channels / 2.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.width = width
        self.g = pointwise(channels, width)
        self.theta = pointwise(channels, width)
        self.phi = pointwise(channels, width)
        self.W = nn.SequentialCell([pointwise(width, channels), batch_norm(channels, gamma="zeros")])

    @replaceable("numba", "cuda")
    def construct(self, x: Tensor) -> Tensor:
        """float32 [N, C, h, w] -> [N, C, h, w]."""
        batch, _, rows, columns = x.shape
        flat = (batch, self.width, rows * columns)
        g, theta, phi = self.g(x).reshape(flat), self.theta(x).reshape(flat), self.phi(x).reshape(flat)
        context = g @ phi.swapaxes(1, 2) / (rows * columns)  # [N, width, width]
        y = context @ theta  # [N, width, L]
        return self.W(y.reshape(batch, self.width, rows, columns)) + x


class AGW(ReIDModel):
    """Two modality stems, a shared ResNet with non-local blocks, GeM pooling and a BNNeck.

    num_classes: identities of the training set.
    """

    BACKBONE = ("visible_stem", "base")

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
            attention = nn.CellList([NonLocal(channels, width) for _ in range(count)])
            if count:
                setattr(self, f"non_local_{stage}", attention)
            for i, block in enumerate(getattr(self.base, f"layer{stage}")):
                shared += [block, attention[i - blocks + count]] if i >= blocks - count else [block]
        self.shared = tuple(shared)
        self.pool = GeM(config.pooling_power, eps=1e-12)
        self.bottleneck = bn_neck(self.embed_dim, spread=0.01)  # as released
        self.classifier = identity_classifier(self.embed_dim, num_classes)
        if setting.recompute:
            attentions = [block for block in shared if isinstance(block, NonLocal)]
            networks = self.visible_stem, self.infrared_stem, self.base
            self.recomputed = ResNet.convolutions(*networks, *(a.W for a in attentions))

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
            images: float32 [N, 3, H, W]; in training [parts PK, 3, H, W], visible (or gray) ones first.
            modality: "visible" or "infrared", of all images, in evaluation; training takes both from the batch.
            key, labels, progress: not used; all models are called alike.

        Returns:
            In training: the first three of `TrainingOutputs`.
            In evaluation: features [N, embed_dim] after BNNeck, L2-normalised.

        Raises:
            ValueError: no modality, or another one, in evaluation; a training batch without equal parts.
        """
        features = self.pooled(images, modality)  # [N, embed_dim]
        normalised = self.bottleneck(features)  # [N, embed_dim]
        if self.training:
            return self.classifier(normalised), features, normalised
        return l2_normalise(normalised)

    @replaceable("cuda")
    def pooled(self, images: Tensor, modality: str | None) -> Tensor:
        """Pictures -> features before BNNeck, [N, embed_dim]; arguments and errors are `construct`'s."""
        if self.training:
            visible, infrared = base.by_modality(images, self.parts)
            x = ops.cat((self.visible_stem(visible), self.infrared_stem(infrared)), 0)
        else:
            x = self.stem_of(modality)(images)  # 288x144 pixels: [N, 64, 72, 36]
        return self.pool(self.shared_blocks(x))

    @replaceable("numba", "cuda")
    def shared_blocks(self, x: Tensor) -> Tensor:
        """The stems' maps [N, C, H, W] -> the base's, [N, embed_dim, h, w]."""
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
        """As released: all but BNNeck and classifier, with the non-local blocks."""
        return not name.startswith(("bottleneck.", "classifier."))

    def load_pretrained(self, file: Pretrained) -> None:
        load_backbone((self.visible_stem, self.infrared_stem, self.base), file, "ResNet")

    def path(self, modality: str) -> tuple[nn.Cell, ...]:
        return getattr(self, f"{modality}_stem"), *self.shared, self.pool, self.bottleneck

    def first_map(self, modality: str) -> nn.Cell:
        return self.base.layer1[-1]
