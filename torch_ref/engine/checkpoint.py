"""Checkpoints that are either whole or not there, and are refused unless they fit exactly."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ms_vireid.command.errors import InputError, refuse_unfit
from ms_vireid.files.checks import FORMAT, read_record, require_file
from ms_vireid.files.writing import whole
from torch_ref.models.weight_file import PICKLED, read_pickled, state_dict_of


@dataclass(frozen=True)
class Checkpoint:
    """What a file held: the model's state dict, the optimizer's (None if there is none), and what was saved with them
    ({} for a foreign file)."""

    path: Path
    model: dict[str, Tensor]
    optimizer: dict | None
    meta: dict


def save_checkpoint(path: Path, model: Mapping[str, Tensor], meta: dict, optimizer: dict | None = None) -> None:
    """Write a `.pth` of plain containers and tensors; raises InputError as `whole` does."""
    content = {"format": FORMAT, **meta, "model": dict(model)}
    if optimizer is not None:
        content["optimizer"] = optimizer
    with whole(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how PyTorch passes on what writing raises
            raise OSError(str(error)) from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a `.pth` file; raises InputError for a foreign or damaged file, and for a format of another version."""
    require_file(path, "checkpoint file")
    if path.suffix not in PICKLED:
        raise InputError(f"{path}: a checkpoint ends in .pth; convert other formats with parity/convert.py")
    loaded = read_pickled(path)
    model = state_dict_of(loaded, path)
    if "format" not in loaded or "config" not in loaded:
        return Checkpoint(path, model, None, {})
    try:
        text = json.dumps({key: value for key, value in loaded.items() if key not in ("model", "optimizer")})
    except (TypeError, ValueError, RecursionError):
        raise InputError(f"{path}: not a checkpoint that torch_ref has written; use another copy") from None
    meta = read_record(path, text)
    return Checkpoint(path, model, loaded.get("optimizer"), meta)


def load_model(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Set all of a model's parameters and buffers; nothing is set unless all fit.

    Raises:
        InputError: names missing or extra, or shapes or types that differ, all counted and the first ten named.
    """
    targets, held = model.state_dict(), checkpoint.model
    missing = [name for name in targets if name not in held]
    extra = [name for name in held if name not in targets]
    differing = [
        f"{name} is {tuple(held[name].shape)} {held[name].dtype}, the model's {tuple(target.shape)} {target.dtype}"
        for name, target in targets.items()
        if name in held and (held[name].shape, held[name].dtype) != (target.shape, target.dtype)
    ]
    refuse_unfit(checkpoint.path, {"missing": missing, "extra": extra, "differing": differing})
    model.load_state_dict(held)


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Set the state of an optimizer whose parameters are named; nothing is set unless all fit.

    Raises:
        InputError: there is no state, or it is of other parameters.
    """
    if checkpoint.optimizer is None:
        raise InputError(f"{checkpoint.path}: holds no training state to resume from")
    names = [group["param_names"] for group in optimizer.param_groups]
    if names != [list(group.get("param_names", ())) for group in checkpoint.optimizer["param_groups"]]:
        raise InputError(f"{checkpoint.path}: its optimizer trains other parameters; check optimizer.* and model.*")
    optimizer.load_state_dict(checkpoint.optimizer)
