"""Twin of `ms_vireid.models.pretrained`, whose docstrings hold here."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ms_vireid.checkpoints.pretrained import Pretrained, read_pretrained
from ms_vireid.checkpoints.weights import COUNTER
from ms_vireid.config import ModelConfig, expand_user, other_sizes
from torch_ref.models.base import ReIDModel
from torch_ref.models.vit import VisionTransformer, resize_position_embedding


def load_pretrained(model: ReIDModel, config: ModelConfig) -> None:
    choice = config.pretrained_weights
    file = read_pretrained(expand_user(config.pretrained), config.backbone_source, choice, config.grid)
    model.began_from = file.saved.meta
    if not file.is_model:
        model.load_pretrained(file)
        return
    targets = {name: value for name, value in model.state_dict().items() if not name.endswith(COUNTER)}
    shapes = {name: value.shape for name, value in targets.items()}
    weights = file.for_model(config.model_dump(mode="json"), shapes, model.OF_IDENTITIES, model.TRAINING_ONLY)
    _set(weights, [(name, targets[name]) for name in weights])


def load_pretrained_vit(vit: VisionTransformer, file: Pretrained) -> None:
    grid = vit.patch_embed.grid_size
    if (source := file.source_grid(grid)) not in (None, grid):
        positions = torch.tensor(file.weights["pos_embed"])
        file.weights["pos_embed"] = resize_position_embedding(positions, grid, source).numpy()
    targets = list(vit.state_dict().items())
    shapes = {name: value.shape for name, value in targets}
    file.require("ViT", shapes, other_sizes(file.weights, shapes))
    _set(file.weights, targets)


def load_backbone(parts: Sequence[nn.Module], file: Pretrained, network: str = "backbone") -> None:
    targets = [pair for part in parts for pair in part.state_dict().items() if not pair[0].endswith(COUNTER)]
    file.require(network, {name: value.shape for name, value in targets})
    _set(file.weights, targets)


def _set(weights: Mapping[str, np.ndarray], targets: Sequence[tuple[str, Tensor]]) -> None:
    for name, target in targets:
        target.copy_(torch.tensor(weights[name]))  # a state dict's tensors are detached from the graph
