"""The configured optimiser."""

from ms_vireid.config import Config
from torch_ref.models.base import ReIDModel
from torch_ref.optimizers.adamw import AdamW
from torch_ref.optimizers.groups import parameter_groups
from torch_ref.optimizers.sgd import SGD


def build_optimizer(model: ReIDModel, config: Config) -> AdamW | SGD:
    options = config.optimizer.model_dump(exclude={"name", "lr", "backbone_factor", "clip_norm"})
    optimizer = {"adamw": AdamW, "sgd": SGD}[config.optimizer.name]
    return optimizer(parameter_groups(model, config.optimizer), **options)
