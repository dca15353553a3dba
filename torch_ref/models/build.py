"""Models from the configuration or by name."""

import torch

from ms_vireid.config import Config, ModelConfig, Setting, expand_user, list_models, model_by_name
from torch_ref.models.agw import AGW
from torch_ref.models.base import ReIDModel
from torch_ref.models.mun import MUN
from torch_ref.models.pmt import PMT

__all__ = ["build_model", "create_model", "list_models"]


NETWORKS = {"pmt": PMT, "agw": AGW, "mun": MUN}  # by `model.name`


def create_model(
    name: str, num_classes: int, image_size: tuple[int, int] = (256, 128), batch: tuple[int, int] = (8, 4), **overrides
) -> ReIDModel:
    return _build(model_by_name(name, **overrides), num_classes, Setting(image_size, batch=batch))


def build_model(config: Config, inference: bool = False) -> ReIDModel:
    """The configured model, with its pretrained weights if `model.pretrained` names a file.

    With `inference` the parts that only training needs are left out. Weights are drawn from `config.seed`, by
    PyTorch's generator: another draw than MindSpore's of that seed.

    Raises:
        InputError: the weight file is missing or does not fit.
        ValueError: the number of identities is neither configured nor known for the data set.
    """
    if config.num_classes is None:
        raise ValueError(f"model.num_classes is not set, and not known for data.name={config.data.name}")
    torch.manual_seed(config.seed)
    model = _build(config.model, config.num_classes, config.setting(inference))
    if config.model.pretrained != "none":
        model.load_pretrained(expand_user(config.model.pretrained))
    return model


def _build(model: ModelConfig, num_classes: int, setting: Setting) -> ReIDModel:
    return NETWORKS[model.name](num_classes, **model.arguments(setting))
