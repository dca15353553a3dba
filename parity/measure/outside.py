"""PMT as somebody outside this project would train it: timm's ViT and a plain step."""

import numpy as np
import torch
from torch import Tensor, nn

from ms_vireid.config import Config
from ms_vireid.data.batches import TrainingBatches
from parity.oracles import timm_vit
from parity.trajectory import TorchTraining
from torch_ref.losses.stage import StageLoss
from torch_ref.models.base import ReIDModel, TrainingOutputs
from torch_ref.models.pmt import PMT
from torch_ref.optimizers import parameter_groups


class OutsidePMT(ReIDModel):
    """timm's ViT with its own dropout and drop path, a BNNeck and a classifier, initialised as released, but for
    the patch embedding's bias, which is 0."""

    def __init__(self, config: Config):
        super().__init__()
        model = config.model
        size = model.patch_size, model.stride, model.embed_dim, model.depth, model.num_heads, model.mlp_ratio
        self.base = timm_vit(config.data.image_size, *size, model.dropout, model.drop_path)
        patches = self.base.patch_embed.proj
        nn.init.normal_(patches.weight, std=(2.0 / (model.patch_size**2 * model.embed_dim)) ** 0.5)
        nn.init.zeros_(patches.bias)
        nn.init.normal_(self.base.cls_token, std=0.02)
        nn.init.normal_(self.base.pos_embed, std=0.02)
        self.bottleneck = nn.BatchNorm1d(model.embed_dim)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(model.embed_dim, model.num_classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, images: Tensor) -> TrainingOutputs:
        """Images [N, 3, H, W] -> logits."""
        features = self.base(images)
        normalised = self.bottleneck(features)
        return TrainingOutputs(self.classifier(normalised), features, normalised)

    in_backbone = PMT.in_backbone


class OutsideTraining(TorchTraining):
    """Trains with a plain step."""

    def __init__(self, config: Config, batches: TrainingBatches):
        super().__init__(config, batches, first=0)
        self.model = OutsidePMT(config).train()
        self.groups = parameter_groups(self.model, config.optimizer)
        betas, eps, weight_decay = config.optimizer.betas, config.optimizer.eps, config.optimizer.weight_decay
        groups = [{"params": group.parameters} for group in self.groups]
        self.optimizer = torch.optim.AdamW(groups, betas=betas, eps=eps, weight_decay=weight_decay)

    def enter(self, *losses) -> None:
        self.loss = StageLoss(*losses)

    def step(
        self, images: np.ndarray, labels: np.ndarray, key: np.int32, progress: float, rates: list[float]
    ) -> dict[str, float]:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        total, *terms = self.loss(self.model(torch.from_numpy(images)), torch.from_numpy(labels))
        self.optimizer.zero_grad()
        total.backward()
        if self.config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        return self.loss.named((total, *terms))
