"""Trained models from checkpoints alone, for the commands that use or show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, require_fitting, stored_config
from ms_vireid.data.read import read_data
from ms_vireid.data.records import ReIDData
from ms_vireid.data.validation import check_pictures
from ms_vireid.engine.checkpoint import Checkpoint, load_checkpoint, load_model
from ms_vireid.engine.run_folder import RunFolder, data_config
from ms_vireid.inference.feature_files import file_checksum
from ms_vireid.inference.features import FeatureExtractor
from ms_vireid.models import build_model
from ms_vireid.models.base import ReIDModel
from ms_vireid.programs.prepare import prepare

# A checkpoint may come from a stranger. Its configuration decides the model's shape and, in these sections, what a
# protocol compares, but no place to read from or write to, and not how much is done.
BELIEVED = {
    "data": {"name", "trial", "test_fraction", "image_size", "synthetic"},
    "evaluation": {"mode", "shots", "direction", "flip", "renormalise"},
}


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint's model, in evaluation mode, with the configuration of its run."""

    path: Path
    config: Config
    model: ReIDModel
    extractor: FeatureExtractor  # of the model, in the run's batches
    epoch: int | None  # of a model.safetensors
    left_out: tuple[str, ...]  # names of the file's parameters that only training needs

    def read_data(self, root: str | None) -> ReIDData:
        """The data set that the model is tested on, from where `data_config` says; raises InputError as that and the
        data set's reader do, and for a test picture that cannot be read."""
        data = read_data(data_config(self.config.data, RunFolder(self.path.parent), root))
        check_pictures(data.test)
        return data

    def source(self) -> dict:
        """What a feature file says of it."""
        return {"file": self.path.name, "sha256": file_checksum(self.path), "epoch": self.epoch}

    @property
    def image_size(self) -> tuple[int, int]:
        return self.config.data.image_size


def load_trained(paths: Sequence[Path | str], program: str = "operators", inference: bool = True) -> list[TrainedModel]:
    """The models of some checkpoints, computed by a program of `programs.prepare`; with `inference` without the parts
    that only training needs. Raises InputError for a file that is missing, foreign, or unfit for its own configuration.
    """
    checkpoints = [load_checkpoint(path) for path in paths]
    configs = [_config_of(checkpoint) for checkpoint in checkpoints]
    trained = []
    for checkpoint, config in zip(checkpoints, configs, strict=True):
        model = build_model(config, inference=inference)
        left_out = tuple(load_model(model, checkpoint))
        model.set_train(False)
        prepare(program, model)
        extractor = FeatureExtractor.configured(model, program, config)
        trained.append(TrainedModel(checkpoint.path, config, model, extractor, checkpoint.meta.get("epoch"), left_out))
    return trained


def _config_of(checkpoint: Checkpoint) -> Config:
    """What a checkpoint's configuration decides (see `BELIEVED`); the rest is as run.json beside it says, if that is of
    its model and data set, or else by default."""
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
