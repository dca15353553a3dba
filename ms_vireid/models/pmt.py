"""Progressive Modality-shared Transformer (PMT, AAAI 2023): one ViT shared by both modalities, a BNNeck on top."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ms_vireid.checkpoints.pretrained import Pretrained
from ms_vireid.config import PMTConfig, Setting
from ms_vireid.models.base import ReIDModel
from ms_vireid.models.layers import bn_neck, identity_classifier, l2_normalise
from ms_vireid.models.pretrained import load_pretrained_vit
from ms_vireid.models.vit import VisionTransformer


class PMT(ReIDModel):
    """Section "The Proposed Method", Fig. 2: the weight-shared transformer F of Eq. 1 and the head that L_ID and
    retrieval use.

    num_classes: identities of the training set.
    """

    BY_MODALITY = False

    def __init__(self, config: PMTConfig, num_classes: int, setting: Setting = Setting()):
        super().__init__()
        self.base = VisionTransformer(
            setting.image_size,
            config.patch_size,
            config.stride,
            config.embed_dim,
            config.depth,
            config.num_heads,
            config.mlp_ratio,
            config.dropout,
            config.drop_path,
            setting.recompute,
        )
        self.bottleneck = bn_neck(self.base.embed_dim)
        self.classifier = identity_classifier(self.base.embed_dim, num_classes)

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
            images: float32 [N, 3, H, W]; in training [2PK, 3, H, W], visible (or gray, stage 1) half first.
            modality: not used, as all weights are shared; all models are called alike.
            key: int32 scalar, the step's key for dropout and drop path, in training.
            labels, progress: not used.

        Returns:
            In training: the first three of `TrainingOutputs`.
            In evaluation: features [N, embed_dim] after BNNeck, L2-normalised.
        """
        features = self.base(images, key).astype(ms.float32)
        normalised = self.bottleneck(features)  # [N, embed_dim]
        if self.training:
            return self.classifier(normalised), features, normalised
        return l2_normalise(normalised)

    def in_backbone(self, name: str) -> bool:
        """As in the paper: the patch projection and all blocks."""
        return "patch_embed.proj." in name or ".blocks." in name

    def load_pretrained(self, file: Pretrained) -> None:
        load_pretrained_vit(self.base, file)

    def path(self, modality: str) -> tuple[nn.Cell, ...]:
        return self.base, self.bottleneck

    def first_map(self, modality: str) -> nn.Cell:
        return self.base.blocks[0]

    def last_map(self) -> nn.Cell:
        """What the last attention sees: of the last block's output only the CLS token is used."""
        return self.base.blocks[-1].norm1

    def as_maps(self, output: np.ndarray) -> np.ndarray:
        """Tokens [N, 1 + L, C], without CLS, back on the grid."""
        rows, columns = self.base.patch_embed.grid_size  # 21x10 for 256x128 pixels
        return output[:, 1:].transpose(0, 2, 1).reshape(len(output), -1, rows, columns)

    def cells_in_picture(self, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
        projection = self.base.patch_embed.proj
        return np.array([np.divide(projection.kernel_size, 2), projection.stride])
