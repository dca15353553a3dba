"""Progressive Modality-shared Transformer (PMT, AAAI 2023): one ViT shared by both modalities, a BNNeck on top."""

from pathlib import Path

from torch import Tensor

from torch_ref.models.base import ReIDModel, TrainingOutputs
from torch_ref.models.layers import bn_neck, identity_classifier, l2_normalise
from torch_ref.models.pretrained import load_pretrained_vit
from torch_ref.models.vit import VisionTransformer


class PMT(ReIDModel):
    """Section "The Proposed Method", Fig. 2: the weight-shared transformer F of Eq. 1 and the head that L_ID and
    retrieval use. Parameters are named as in the authors' release.

    Args:
        num_classes: identities of the training set.
        vit: arguments of `VisionTransformer`.
    """

    def __init__(self, num_classes: int, **vit):
        super().__init__()
        self.base = VisionTransformer(**vit)
        self.bottleneck = bn_neck(self.base.embed_dim)
        self.classifier = identity_classifier(self.base.embed_dim, num_classes)

    def forward(
        self,
        images: Tensor,
        modality: str | None = None,
        key: Tensor | None = None,
        labels: Tensor | None = None,
        progress: Tensor | float = 0.0,
    ):
        """
        Args:
            images: float32 [N, 3, H, W]; in training [2PK, 3, H, W], visible (or gray, stage 1) half first.
            modality: not used, as all weights are shared; there so that all models are called alike.
            key: int32 scalar, the step's key for dropout and drop path, in training.
            labels, progress: not used.

        Returns:
            In training: `TrainingOutputs`, the first three of them.
            In evaluation: features [N, embed_dim] after BNNeck, L2-normalised.
        """
        features = self.base(images, key)
        normalised = self.bottleneck(features)  # [N, embed_dim]
        if self.training:
            return TrainingOutputs(self.classifier(normalised), features, normalised)
        return l2_normalise(normalised)

    def in_backbone(self, name: str) -> bool:
        """The paper's: the patch projection and all blocks."""
        return "patch_embed.proj." in name or ".blocks." in name

    def load_pretrained(self, path: Path) -> None:
        load_pretrained_vit(self.base, path)
