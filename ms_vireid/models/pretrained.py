"""A model's first weights from a user's own file: of ImageNet, or of a re-identification model."""

from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn

from ms_vireid.checkpoints.layouts import torch_name
from ms_vireid.checkpoints.pretrained import Pretrained, read_pretrained
from ms_vireid.config import ModelConfig, expand_user, other_sizes
from ms_vireid.models.base import ReIDModel
from ms_vireid.models.vit import VisionTransformer, resize_position_embedding


def load_pretrained(model: ReIDModel, config: ModelConfig) -> None:
    """Load the file of `model.pretrained`: a backbone as the model does, a whole model but for what belongs to the
    people that it was trained on. Nothing is set unless everything fits. Raises InputError as `read_pretrained`, and
    for weights that are missing, extra, misshapen or not finite.
    """
    choice = config.pretrained_weights
    file = read_pretrained(expand_user(config.pretrained), config.backbone_source, choice, config.grid)
    model.began_from = file.saved.meta
    if not file.is_model:
        model.load_pretrained(file)
        return
    targets = {torch_name(name): parameter for name, parameter in model.parameters_dict().items()}
    shapes = {name: parameter.shape for name, parameter in targets.items()}
    weights = file.for_model(config.model_dump(mode="json"), shapes, model.OF_IDENTITIES, model.TRAINING_ONLY)
    _set(weights, [(name, targets[name]) for name in weights])


def load_pretrained_vit(vit: VisionTransformer, file: Pretrained) -> None:
    """Load a timm ViT's weights. The position embedding is resized to the model's patches."""
    grid = vit.patch_embed.grid_size
    if (source := file.source_grid(grid)) not in (None, grid):
        file.weights["pos_embed"] = resize_position_embedding(file.weights["pos_embed"], grid, source)
    targets = [(torch_name(name).removeprefix("base."), p) for name, p in vit.parameters_dict().items()]
    shapes = {name: parameter.shape for name, parameter in targets}
    file.require("ViT", shapes, other_sizes(file.weights, shapes))
    _set(file.weights, targets)


def load_backbone(parts: Sequence[nn.Cell], file: Pretrained, network: str = "backbone") -> None:
    """Load a backbone's weights into the parts of a network, whose cells have the file's names. Parts with the same
    names get the same weights. Raises InputError unless everything fits. network: in words."""
    targets = [(torch_name(name), parameter) for part in parts for name, parameter in part.parameters_and_names()]
    file.require(network, {name: parameter.shape for name, parameter in targets})
    _set(file.weights, targets)


def _set(weights: Mapping[str, np.ndarray], targets: Sequence[tuple[str, Parameter]]) -> None:
    for name, target in targets:
        target.set_data(ms.Tensor(weights[name]))
