"""The least memory that a configured network needs, on paper, before anything is allocated; without a framework."""

from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, Cost
from ms_vireid.devices.memory import require_memory

_FLOAT32 = 4  # bytes
_COPIES = {"adamw": 4, "sgd": 3}  # of a weight in training: itself, its gradient, the optimizer's states

_MOST_TIMES = 4  # as many parameters as a file for inference holds, which lacks those of training


def require_memory_for(config: Config, training: bool) -> None:
    """Raise InputError, with the figure, if the network and one batch need more memory than there is."""
    cost = network_cost(config)
    if training:
        images = 2 * config.train.num_identities * config.train.num_instances
        size = _COPIES[config.optimizer.name] * cost.parameters + images * cost.kept
    else:
        images = config.evaluation.batch_size
        size = cost.parameters + images * cost.largest
    height, width = config.data.image_size
    doing = f"model.name={config.model.name} of {cost.parameters:,} parameters on {images} pictures of {height}x{width}"
    require_memory(_FLOAT32 * size, doing, "make the model, the batch or data.image_size smaller")


def require_fitting(path: Path, config: Config, held: int) -> None:
    """Raise InputError, before allocating, if a file of `held` numbers has a configuration with far more parameters."""
    wanted = network_cost(config).parameters
    if wanted > _MOST_TIMES * held:
        raise InputError(
            f"{path}: does not fit the model: its configuration is of {wanted:,} parameters, and it holds {held:,}; "
            "use another copy"
        )


def network_cost(config: Config) -> Cost:
    return config.model.cost(config.setting(), config.num_classes or 0)
