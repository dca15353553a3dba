"""Checkpoints that are either whole or not there, and are refused unless they fit exactly."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter

from ms_vireid.command.errors import InputError, refuse_unfit
from ms_vireid.engine.optimizer import STATES
from ms_vireid.files.checks import FORMAT, read_record, require_file
from ms_vireid.files.ckpt import read_ckpt, write_ckpt
from ms_vireid.files.writing import whole
from ms_vireid.models.base import ReIDModel

DEVICES = "devices"  # DEVICES.NAME: what each of several devices remembers as NAME, in their order


@dataclass(frozen=True)
class Checkpoint:
    """What a file held: arrays by name, and the record that was saved with them ({} for a foreign .ckpt)."""

    path: Path
    arrays: dict[str, np.ndarray]
    meta: dict


def save_checkpoint(path: Path, parameters: Iterable[Parameter], meta: dict) -> None:
    """Write a MindSpore `.ckpt`; raises InputError as `whole` does."""
    save_arrays(path, {parameter.name: parameter.asnumpy() for parameter in parameters}, meta)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], meta: dict) -> None:
    """The same of arrays by name."""
    with whole(path) as temporary:
        write_ckpt(temporary, arrays, json.dumps({"format": FORMAT, **meta}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a `.ckpt` file; raises InputError as `read_ckpt` and `read_record` do, and for another suffix."""
    require_file(path, "checkpoint file")
    if path.suffix != ".ckpt":
        raise InputError(f"{path}: a checkpoint ends in .ckpt; convert other formats with parity/convert.py")
    arrays, text = read_ckpt(path)
    return Checkpoint(path, arrays, read_record(path, text))


def load_parameters(targets: Iterable[Parameter], checkpoint: Checkpoint) -> None:
    """Set every target from the checkpoint's parameter of its name; nothing is set unless all fit.

    Raises:
        InputError: names missing, shapes or types that differ, or values that are not finite, all counted and the first
            ten named.
    """
    targets = list(targets)
    held = checkpoint.arrays
    missing = [p.name for p in targets if p.name not in held]
    present = [(p, held[p.name]) for p in targets if p.name in held]
    differing = [
        f"{p.name} is {h.shape} {h.dtype}, the model's {tuple(p.shape)} {_dtype(p)}"
        for p, h in present
        if tuple(p.shape) != h.shape or _dtype(p) != h.dtype
    ]
    endless = [p.name for p, h in present if not np.isfinite(h).all()]
    refuse_unfit(checkpoint.path, {"missing": missing, "differing": differing, "not finite": endless})
    for parameter, value in present:
        parameter.set_data(ms.Tensor(value))


def _dtype(parameter: Parameter) -> np.dtype:
    return np.dtype(ms.dtype_to_nptype(parameter.dtype))


def load_model(model: ReIDModel, checkpoint: Checkpoint) -> list[str]:
    """Set all of a model's parameters.

    Returns:
        The names of the file's parameters that the model lacks because only training needs them
        (`ReIDModel.TRAINING_ONLY`). An optimizer's state, and other devices' memories, are left out without mention.

    Raises:
        InputError: as `load_parameters`, or other parameters that the model does not have.
    """
    targets = {p.name: p for p in model.get_parameters()}
    states = tuple(f"{state}." for state in (*STATES, DEVICES))
    extra = [name for name in checkpoint.arrays if name not in targets and not name.startswith(states)]
    left_out = [name for name in extra if name.startswith(model.TRAINING_ONLY)]
    refuse_unfit(checkpoint.path, {"not in the model": [name for name in extra if name not in left_out]})
    load_parameters(targets.values(), checkpoint)
    return left_out
