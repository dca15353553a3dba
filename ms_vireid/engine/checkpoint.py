"""Checkpoints that are either whole or not there, and are refused unless they fit exactly."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
from mindspore import Parameter

from ms_vireid.data.validation import summary
from ms_vireid.engine.optimizer import STATES
from ms_vireid.errors import InputError
from ms_vireid.models.base import ReIDModel
from ms_vireid.models.weight_file import META_KEY, quiet, read_ckpt

FORMAT = 1
DEVICES = "devices"  # DEVICES.NAME: what each of several devices remembers as NAME, in their order


@dataclass(frozen=True)
class Checkpoint:
    """What a file held: parameters by name, and the JSON that was saved with them ({} for a foreign .ckpt)."""

    path: Path
    parameters: dict[str, Parameter]
    meta: dict


def save_checkpoint(path: Path, parameters: Iterable[Parameter], meta: dict) -> None:
    """Write a MindSpore `.ckpt` under a temporary name, sync it, and rename it over `path`.

    Raises:
        InputError: it cannot be written (a full disk, no permission); whatever `path` held is untouched.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.ckpt")
    entries = [{"name": p.name, "data": p} for p in parameters]
    text = json.dumps({"format": FORMAT, **meta})
    try:
        with quiet():
            ms.save_checkpoint(entries, str(temporary), append_dict={META_KEY: text}, crc_check=True)
        temporary.chmod(0o644)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:
        for left in path.parent.glob(f".{path.stem}.{os.getpid()}.*"):
            left.unlink()
        kept = f"the earlier {path.name} is intact" if path.exists() else "nothing was written"
        raise InputError(f"{path}: cannot write the checkpoint ({error}); {kept}; free space and resume") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a `.ckpt` file; raises InputError as `read_ckpt` does, and for a format of another version."""
    parameters, text = read_ckpt(path)
    meta = json.loads(text)
    if meta.get("format", FORMAT) != FORMAT:
        raise InputError(f"{path}: checkpoint format {meta['format']}, this version reads {FORMAT}; update ms_vireid")
    return Checkpoint(path, parameters, meta)


def load_parameters(targets: Iterable[Parameter], checkpoint: Checkpoint) -> None:
    """Set every target from the checkpoint's parameter of its name; nothing is set unless all fit.

    Raises:
        InputError: names missing, or shapes or types that differ, all counted and the first ten named.
    """
    targets = list(targets)
    held = checkpoint.parameters
    missing = [p.name for p in targets if p.name not in held]
    present = [(p, held[p.name]) for p in targets if p.name in held]
    differing = [
        f"{p.name} is {tuple(h.shape)} {h.dtype}, the model's {tuple(p.shape)} {p.dtype}"
        for p, h in present
        if p.shape != h.shape or p.dtype != h.dtype
    ]
    problems = [f"{what} {summary(names)}" for what, names in (("missing", missing), ("differing", differing)) if names]
    if problems:
        raise InputError(
            f"{checkpoint.path}: does not fit the model: {'; '.join(problems)}; check model.* and the file"
        )
    for parameter, value in present:
        parameter.set_data(ms.Tensor(value.asnumpy()))


def load_model(model: ReIDModel, checkpoint: Checkpoint) -> list[str]:
    """Set all of a model's parameters.

    Returns:
        The names of the file's parameters that the model has not because only training needs them
        (`ReIDModel.TRAINING_ONLY`). An optimizer's state, and other devices' memories, are left out without mention.

    Raises:
        InputError: as `load_parameters`; or other parameters that the model has not.
    """
    targets = {p.name: p for p in model.get_parameters()}
    states = tuple(f"{state}." for state in (*STATES, DEVICES))
    extra = [name for name in checkpoint.parameters if name not in targets and not name.startswith(states)]
    left_out = [name for name in extra if name.startswith(model.TRAINING_ONLY)]
    if unknown := [name for name in extra if name not in left_out]:
        what = f"not in the model {summary(unknown)}"
        raise InputError(f"{checkpoint.path}: does not fit the model: {what}; check model.* and the file")
    load_parameters(targets.values(), checkpoint)
    return left_out
