"""Trained models, rebuilt from their checkpoints alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_vireid.backends.backend import Backend
from ms_vireid.backends.choosing import choose
from ms_vireid.checkpoints.containers import weight_file
from ms_vireid.command.running import project_version
from ms_vireid.config import Config, dump_config, expand_user
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.data.transforms import load_image
from ms_vireid.devices.turns import DEVICE
from ms_vireid.engine.checkpoint import load_checkpoint, load_model
from ms_vireid.engine.checkpoint_config import checkpoint_config
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.engine.test_set import read_test_set
from ms_vireid.files.checks import file_checksum
from ms_vireid.models import build_model
from ms_vireid.models.base import ReIDModel
from ms_vireid.search.feature_files import FORMAT
from ms_vireid.search.features import FeatureExtractor


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint's model in evaluation mode, with the configuration of its run."""

    path: Path
    config: Config
    model: ReIDModel
    extractor: FeatureExtractor  # with the run's batch size
    record: dict  # saved with the weights
    left_out: tuple[str, ...]  # names of the file's parameters that only training needs

    def test_set(
        self, root: str | None, another: Sequence[str] = (), layout: str | None = None
    ) -> tuple[Config, ReIDData, bool]:
        """Read the data set to test it on, as `read_test_set`."""
        return read_test_set(self.config, self.path, self.record, root, another, layout)

    def source(self) -> dict:
        """The checkpoint's identity, as a feature file records it."""
        return {"file": self.path.name, "sha256": file_checksum(self.path), "epoch": self.record.get("epoch")}

    def feature_info(self) -> dict:
        """The `info` of its features, before any folder of pictures is known."""
        about = {"format": FORMAT, "version": project_version(), "checkpoint": self.source()}
        return about | {"config": dump_config(self.config), "images": "", "skipped": {}}

    @property
    def trained_root(self) -> str | None:
        """Where the data set of the training was, if the run or the checkpoint says so."""
        run, root = RunFolder(self.path.parent), self.config.data.root
        if run.has_run():
            return run.read_record().data.root
        return None if root is None else str(expand_user(str(root)).resolve())

    @property
    def image_size(self) -> tuple[int, int]:
        return self.config.data.image_size

    def load_image(self, images: ImageSet, index: int) -> np.ndarray:
        """Decode a picture of a set as the model sees it, uint8 [H, W, 3]. Raises InputError as `read_pixels` does."""
        value_range = self.config.data.value_ranges.of(images.infrared[index], images.cameras[index])
        return load_image(images.paths[index], self.image_size, None, value_range)


@DEVICE
def load(paths: Sequence[Path | str], backend: Backend | None = None, inference: bool = True) -> list[TrainedModel]:
    """Load the models of checkpoints or run folders. Raises InputError for a file that is missing, foreign, or does not
    fit its own configuration.

    backend: computes them (default: `eager`). inference: leave out the parts that only training needs.
    """
    checkpoints = [load_checkpoint(weight_file(Path(path))) for path in paths]
    configs = [checkpoint_config(checkpoint) for checkpoint in checkpoints]
    backend, trained = backend or choose("eager"), []
    for checkpoint, config in zip(checkpoints, configs, strict=True):
        model = build_model(config, inference=inference)
        left_out = tuple(load_model(model, checkpoint))
        model.set_train(False)
        backend.accelerate(model)
        extractor = FeatureExtractor.configured(model, backend, config)
        trained.append(TrainedModel(checkpoint.path, config, model, extractor, checkpoint.meta, left_out))
    return trained
