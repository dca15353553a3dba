"""Checkpoints of a run: written whole or not at all, and refused unless they fit exactly."""

from collections.abc import Iterable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, ops

from ms_vireid.command.names import MINDSPORE
from ms_vireid.files.weights import COUNTER, STATES, Checkpoint, read_checkpoint, write_checkpoint
from ms_vireid.models.base import ReIDModel

DEVICES = "devices"  # prefix of per-device buffers, stacked by rank


def save_checkpoint(path: Path, parameters: Iterable[Parameter], meta: dict) -> None:
    """Write parameters and a record; raises InputError as `whole` does."""
    write_checkpoint(path, {parameter.name: parameter.asnumpy() for parameter in parameters}, meta, MINDSPORE)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a file of MindSpore's names; raises InputError as `read_checkpoint` does."""
    return read_checkpoint(path, MINDSPORE)


def load_parameters(targets: Iterable[Parameter], checkpoint: Checkpoint, extra: Iterable[str] = ()) -> None:
    """Set every target from the checkpoint's parameter of its name; none is set, and InputError raised as by
    `Checkpoint.require`, unless all fit."""
    targets = list(targets)
    wanted = {p.name: (tuple(p.shape), np.dtype(ms.dtype_to_nptype(p.dtype))) for p in targets}
    checkpoint.require(wanted, extra)
    for parameter in targets:
        # In place: what has been laid out stays there, and a graph that has run would go on with the old values.
        ops.assign(parameter, ms.Tensor(checkpoint.arrays[parameter.name]))


def load_model(model: ReIDModel, checkpoint: Checkpoint) -> list[str]:
    """Set all of a model's parameters; raises InputError as `load_parameters`, or for parameters that the model lacks.

    Returns:
        The names of those that it lacks because only training needs them (`ReIDModel.TRAINING_ONLY`). An optimizer's
        state, other devices' memories and PyTorch's counters are left out without mention.
    """
    targets = {p.name: p for p in model.get_parameters()}
    silent = tuple(f"{key}." for keys in (*STATES.values(), (DEVICES,)) for key in keys)
    others = [name for name in checkpoint.arrays if name not in targets and not name.startswith(silent)]
    left_out = [name for name in others if name.startswith(model.TRAINING_ONLY)]
    extra = [name for name in others if name not in left_out and not name.endswith(COUNTER)]
    load_parameters(targets.values(), checkpoint, extra)
    return left_out
