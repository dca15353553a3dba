"""Models from the configuration or by name."""

from importlib import import_module

import mindspore as ms

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import in_one_line
from ms_vireid.config import Config, ModelConfig, Setting, named_model
from ms_vireid.devices.turns import DEVICE
from ms_vireid.models.base import ReIDModel
from ms_vireid.models.pretrained import load_pretrained


@in_one_line()
@DEVICE
def create_model(
    name: str,
    num_classes: int,
    image_size: tuple[int, int] = (256, 128),
    batch: tuple[int, int] = (8, 4),
    parts: int = 2,
    **overrides,
) -> ReIDModel:
    """Build a model by name, as in timm and mindcv; `overrides` are fields of its `ms_vireid.config.ModelConfig`.

    `image_size` is (H, W); AGW and MUN take images of any size. `batch` is P and K of MUN's training, `parts` those of
    `visible_rows`. Raises InputError for an unknown name or field, a value that does not fit, or a file of
    `pretrained` weights that is missing or does not fit.
    """
    config, setting = named_model(name, num_classes, image_size, batch, parts, overrides)
    return _build(config, config.num_classes, setting)


@DEVICE
def build_model(config: Config, inference: bool = False) -> ReIDModel:
    """Build the configured model, initialised from `config.seed` or from the file `model.pretrained`. inference: leave
    out the parts that only training needs.

    Raises InputError for a weight file that is missing or does not fit, and if the number of identities is neither
    configured nor known for the data set.
    """
    if config.num_classes is None:
        raise InputError(f"model.num_classes is not set, and not known for data.name={config.data.name}")
    ms.set_seed(config.seed)
    return _build(config.model, config.num_classes, config.setting(inference))


def _build(config: ModelConfig, num_classes: int, setting: Setting) -> ReIDModel:
    network = getattr(import_module(f"ms_vireid.models.{config.name}"), config.network)
    model = network(config, num_classes, setting)
    if not config.from_scratch:
        load_pretrained(model, config)
    return model
