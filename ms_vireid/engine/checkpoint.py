"""Checkpoints of a run: written atomically, and refused unless they fit exactly."""

from collections.abc import Iterable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, ops

from ms_vireid.checkpoints.weights import COUNTER, PER_DEVICE, STATES, Checkpoint, read_checkpoint, write_checkpoint
from ms_vireid.command.names import MINDSPORE
from ms_vireid.models.base import ReIDModel


def save_checkpoint(path: Path, parameters: Iterable[Parameter], meta: dict) -> None:
    """Write parameters and a record; raises InputError as `atomic_write` does."""
    write_checkpoint(path, {parameter.name: parameter.asnumpy() for parameter in parameters}, meta, MINDSPORE)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a file with MindSpore's names; raises InputError as `read_checkpoint` does."""
    return read_checkpoint(path, MINDSPORE)


def load_parameters(targets: Iterable[Parameter], checkpoint: Checkpoint, extra: Iterable[str] = ()) -> None:
    """Set every target from the checkpoint, by name. Unless all fit, none is set and InputError is raised as by
    `Checkpoint.require`."""
    targets = list(targets)
    checkpoint.require({p.name: (tuple(p.shape), np.dtype(ms.dtype_to_nptype(p.dtype))) for p in targets}, extra)
    for parameter in targets:
        # In place: contiguous buffers stay where they are, and compiled graphs read the same memory.
        ops.assign(parameter, ms.Tensor(checkpoint.arrays[parameter.name]))


def load_model(model: ReIDModel, checkpoint: Checkpoint) -> list[str]:
    """Set all of a model's parameters; raises InputError as `load_parameters`, and for names that the model lacks.

    Returns the names that it lacks because only training needs them (`ReIDModel.TRAINING_ONLY`). The optimizer's state,
    other devices' buffers and PyTorch's counters are ignored.
    """
    targets = {p.name: p for p in model.get_parameters()}
    ignored = tuple(f"{key}." for keys in (*STATES.values(), (PER_DEVICE,)) for key in keys)
    others = [name for name in checkpoint.arrays if name not in targets and not name.startswith(ignored)]
    left_out = [name for name in others if name.startswith(model.TRAINING_ONLY)]
    extra = [name for name in others if name not in left_out and not name.endswith(COUNTER)]
    load_parameters(targets.values(), checkpoint, extra)
    return left_out
