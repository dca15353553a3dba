"""Trained models from checkpoints alone, for the commands that use or show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ms_vireid import runtime
from ms_vireid.config import Config, check_config
from ms_vireid.engine.checkpoint import load_checkpoint, load_model
from ms_vireid.engine.programs import run_by
from ms_vireid.errors import InputError
from ms_vireid.models import build_model
from ms_vireid.models.base import ReIDModel


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint's model, in evaluation mode, with the configuration of its run."""

    path: Path
    config: Config
    model: ReIDModel
    epoch: int | None  # of a model.ckpt
    left_out: tuple[str, ...]  # names of the file's parameters that only training needs

    @property
    def image_size(self) -> tuple[int, int]:
        return self.config.data.image_size


def load_trained(paths: Sequence[Path], program: str = "operators", inference: bool = True) -> list[TrainedModel]:
    """The models of some checkpoints, computed by a program of `engine.programs`; with `inference` without the parts
    that only training needs.

    Raises:
        InputError: a file that is missing, not a checkpoint of this project, or does not fit its own configuration.
    """
    checkpoints = [load_checkpoint(path) for path in paths]
    configs = []
    for checkpoint in checkpoints:
        if "config" not in checkpoint.meta:
            raise InputError(f"{checkpoint.path}: holds no configuration, it is not a checkpoint of this project")
        tree = checkpoint.meta["config"]
        tree["model"]["pretrained"] = "none"  # its weights come from the checkpoint alone
        configs.append(check_config(tree, str(checkpoint.path)))
    for config in configs:  # of all models, before the first primitive
        runtime.choose_instruction_set(config.model.name)
    trained = []
    for checkpoint, config in zip(checkpoints, configs, strict=True):
        model = build_model(config, inference=inference)
        left_out = tuple(load_model(model, checkpoint))
        model.set_train(False)
        run_by(program, model)
        trained.append(TrainedModel(checkpoint.path, config, model, checkpoint.meta.get("epoch"), left_out))
    return trained
