"""PMT as somebody would train it who has not seen this project: timm's ViT, torchvision's transforms, a plain step."""

import numpy as np
import torch
from torch import Tensor, nn

from ms_vireid.config import Config
from ms_vireid.data.batches import TrainingBatches
from parity.oracles import timm_vit
from parity.pictures import Pictures
from parity.trajectory import TorchTraining
from torch_ref.engine.optimizer import build_optimizer
from torch_ref.engine.train_step import StageLoss, TrainStep


class OutsidePMT(nn.Module):
    """timm's ViT with its own dropout and drop path, BNNeck and a classifier, as the release initialises them."""

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

    def forward(self, images: Tensor, *_) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, and the features before and after BNNeck; modality, key, labels and progress are not used."""
        features = self.base(images)
        normalised = self.bottleneck(features)
        return self.classifier(normalised), features, normalised


class OutsidePictures:
    """The batches of a `TrainingBatches`' sampler as torchvision reads and augments them."""

    def __init__(self, batches: TrainingBatches, config: Config):
        self.sampler = batches.sampler
        self.length = len(batches)
        gray = config.stages[0].visible == "gray"
        self.pictures = Pictures(batches.train, config, gray)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, iteration = 1 + step // self.sampler.iterations, step % self.sampler.iterations
        images, labels = zip(*(self.pictures[int(i)] for i in self.sampler.plan(epoch)[iteration]), strict=True)
        return torch.stack(images).numpy(), np.array(labels, np.int32)


class OutsideTraining(TorchTraining):
    """Of the first stage."""

    def __init__(self, config: Config, batches: TrainingBatches):
        super().__init__(config, OutsidePictures(batches, config), first=0)
        self.model = OutsidePMT(config).train()
        self.optimizer = build_optimizer(self.model, config)
        self.train_step = TrainStep(self.model, StageLoss(*self.losses), self.optimizer)
