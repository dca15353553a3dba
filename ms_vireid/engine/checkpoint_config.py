"""Which parts of a checkpoint's own configuration are trusted."""

from ms_vireid.checkpoints.weights import Checkpoint
from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, check_config, require_fitting
from ms_vireid.engine.run_folder import RunFolder

# A checkpoint may come from a stranger. Its configuration decides the model's shape and, by these keys, what the model
# makes of a picture and what a protocol compares, but neither where to read and write nor how fast to work.
TRUSTED = {
    "data": {"name", "trial", "test_fraction", "image_size", "layout", "sixteen_bit", "no_value", "synthetic"},
    "evaluation": {"mode", "shots", "direction", "trials", "flip", "renormalise", "rerank"},
}


def checkpoint_config(checkpoint: Checkpoint) -> Config:
    """Return the configuration to use a checkpoint with. Its own decides the keys in `TRUSTED`; the others come from
    the run.json beside it, if that has the same model and data set, or are defaults. Raises InputError if the
    checkpoint has no configuration or its weights do not fit it."""
    if "config" not in checkpoint.meta:
        problem = "holds no configuration, it is not a checkpoint of this project"
        convert = f"python parity/convert.py {checkpoint.path} NEW.safetensors --config RECIPE"
        raise InputError(f"{checkpoint.path}: {problem}; convert it: {convert}")
    if parts := checkpoint.meta.get("parts"):
        problem = f"holds {' and '.join(parts)} of a model alone; give it as model.pretrained"
        raise InputError(f"{checkpoint.path}: {problem}")
    stored = check_config(checkpoint.meta["config"], str(checkpoint.path))
    folder = RunFolder(checkpoint.path.parent)
    run = check_config(folder.read_record().config, str(folder.record)) if folder.has_run() else None
    if run and (run.model, run.data.name) != (stored.model, stored.data.name):
        run = None
    model = stored.model.model_copy(update={"pretrained": "none"})  # the checkpoint has all weights
    sections = {}
    for section, keys in TRUSTED.items():
        trusted = getattr(stored, section).model_dump(include=keys)
        others = getattr(run, section).model_dump(exclude=keys) if run else {}
        sections[section] = type(getattr(stored, section)).model_validate(others | trusted)
    config = stored.model_copy(update={"model": model, **sections})
    require_fitting(checkpoint.path, config.model, sum(array.size for array in checkpoint.arrays.values()))
    return config
