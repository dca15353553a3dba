"""Twin of `ms_vireid.models.pmt`, whose docstrings hold here; parameters are named as in the authors' release."""

from torch import Tensor

from ms_vireid.checkpoints.pretrained import Pretrained
from ms_vireid.config import PMTConfig, Setting
from torch_ref.models.base import ReIDModel, TrainingOutputs
from torch_ref.models.layers import bn_neck, identity_classifier, l2_normalise
from torch_ref.models.pretrained import load_pretrained_vit
from torch_ref.models.vit import VisionTransformer


class PMT(ReIDModel):
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

    def forward(
        self,
        images: Tensor,
        modality: str | None = None,
        key: Tensor | None = None,
        labels: Tensor | None = None,
        progress: Tensor | float = 0.0,
    ) -> Tensor | TrainingOutputs:
        features = self.base(images, key)
        normalised = self.bottleneck(features)  # [N, embed_dim]
        if self.training:
            return TrainingOutputs(self.classifier(normalised), features, normalised)
        return l2_normalise(normalised)

    def in_backbone(self, name: str) -> bool:
        return "patch_embed.proj." in name or ".blocks." in name

    def load_pretrained(self, file: Pretrained) -> None:
        load_pretrained_vit(self.base, file)
