"""Twin of `ms_vireid.models.build`, whose docstrings hold here."""

from importlib import import_module

import torch

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import in_one_line
from ms_vireid.config import Config, ModelConfig, Setting, named_model
from torch_ref.models.base import ReIDModel
from torch_ref.models.pretrained import load_pretrained


@in_one_line()
def create_model(
    name: str,
    num_classes: int,
    image_size: tuple[int, int] = (256, 128),
    batch: tuple[int, int] = (8, 4),
    parts: int = 2,
    **overrides,
) -> ReIDModel:
    config, setting = named_model(name, num_classes, image_size, batch, parts, overrides)
    return _build(config, config.num_classes, setting)


def build_model(config: Config, inference: bool = False) -> ReIDModel:
    """As its twin, but PyTorch's generator draws the weights, which differ from MindSpore's of the same seed."""
    if config.num_classes is None:
        raise InputError(f"model.num_classes is not set, and not known for data.name={config.data.name}")
    torch.manual_seed(config.seed)
    return _build(config.model, config.num_classes, config.setting(inference))


def _build(config: ModelConfig, num_classes: int, setting: Setting) -> ReIDModel:
    network = getattr(import_module(f"torch_ref.models.{config.name}"), config.network)
    model = network(config, num_classes, setting)
    if not config.from_scratch:
        load_pretrained(model, config)
    return model
