"""What is believed of a checkpoint's own configuration."""

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, require_fitting, stored_config
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.files.weights import Checkpoint

# A checkpoint may come from a stranger. Its configuration decides the model's shape and, in these sections, what a
# protocol compares, but no place to read from or write to, and not how much is done.
BELIEVED = {
    "data": {"name", "trial", "test_fraction", "image_size", "synthetic"},
    "evaluation": {"mode", "shots", "direction", "flip", "renormalise"},
}


def believed_config(checkpoint: Checkpoint) -> Config:
    """What a checkpoint's configuration decides (see `BELIEVED`); the rest is as run.json beside it says, if that is of
    its model and data set, or else by default. Raises InputError unless there is one, and it fits the weights."""
    if "config" not in checkpoint.meta:
        raise InputError(f"{checkpoint.path}: holds no configuration, it is not a checkpoint of this project")
    carried = stored_config(checkpoint.meta["config"], str(checkpoint.path))
    folder = RunFolder(checkpoint.path.parent)
    own = stored_config(folder.read_record().config, str(folder.record)) if folder.begun() else None
    if own and (own.model, own.data.name) != (carried.model, carried.data.name):
        own = None
    model = carried.model.model_copy(update={"pretrained": "none"})  # its weights come from the checkpoint alone
    sections = {}
    for section, keys in BELIEVED.items():
        held = getattr(carried, section).model_dump(include=keys)
        rest = getattr(own, section).model_dump(exclude=keys) if own else {}
        sections[section] = type(getattr(carried, section)).model_validate(rest | held)
    config = carried.model_copy(update={"model": model, **sections})
    require_fitting(checkpoint.path, config.model, sum(array.size for array in checkpoint.arrays.values()))
    return config
