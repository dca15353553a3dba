"""The configured optimiser."""

from ms_vireid.config import Config
from ms_vireid.models.base import ReIDModel
from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.groups import parameter_groups
from ms_vireid.optimizers.sgd import SGD


def build_optimizer(model: ReIDModel, config: Config) -> AdamW | SGD:
    """Build the configured optimiser of all trainable parameters."""
    options = config.optimizer.model_dump(exclude={"name", "lr", "backbone_factor", "clip_norm"})
    return {"adamw": AdamW, "sgd": SGD}[config.optimizer.name](parameter_groups(model, config.optimizer), **options)
