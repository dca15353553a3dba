"""Checkpoint files as tensors by name: .safetensors, MindSpore's .ckpt, and PyTorch's .pth."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import TORCH
from ms_vireid.engine.checkpoint import DEVICES
from ms_vireid.files.checks import require_file
from ms_vireid.files.weights import FORMAT, READ, STATES, Record, read_checkpoint, read_record, write_checkpoint
from ms_vireid.files.writing import atomic_write
from torch_ref.models.weight_file import PICKLED, WRAPPERS, read_pickled, state_dict_of

TRAINING = ("step", "data_checksum", "best", "devices", "loss_scale")  # of the record of a state to resume from


@dataclass(frozen=True)
class Contents:
    """What a checkpoint file holds.

    weights: by the file's names. states: the optimizer's, as KEY.NAME with the weight's name. meta: the record saved
    with them, {} for a foreign file. framework: whose names these are; None: the file does not say. beside: what else
    is there and is not converted, with its type or shape, and why.
    """

    weights: dict[str, Tensor]
    states: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    framework: str | None = None
    beside: dict[str, tuple[str, str]] = field(default_factory=dict)


def read(path: Path) -> Contents:
    """Read a file of any of the formats.

    Raises:
        InputError: no such file, another format, not whole, or something other than weights.
    """
    require_file(path, "checkpoint file")
    if path.suffix in PICKLED:
        return _read_pickled(path)
    if path.suffix not in READ:
        raise InputError(f"{path}: its suffix is none of {', '.join(READ)}")
    held = read_checkpoint(path)
    if not held.arrays:
        raise InputError(f"{path}: holds no weights")
    tensors = {name: torch.from_numpy(array) for name, array in held.arrays.items()}
    keys = tuple(f"{key}." for keys in STATES.values() for key in keys)
    states = {name: value for name, value in tensors.items() if name.startswith(keys)}
    rows = {name: value for name, value in tensors.items() if name.startswith(f"{DEVICES}.")}
    weights = {name: value for name, value in tensors.items() if name not in states | rows}
    beside = {name: (str(list(value.shape)), "of several processes") for name, value in rows.items()}
    return Contents(weights, states, held.meta, held.framework, beside)


def _read_pickled(path: Path) -> Contents:
    loaded = read_pickled(path)
    weights = {name: value.detach() for name, value in state_dict_of(loaded, path).items()}
    wrapper = next((key for key in WRAPPERS if isinstance(loaded.get(key), dict)), None)
    others = {str(key): value for key, value in loaded.items() if wrapper and key != wrapper}
    meta = {}
    if {"format", "config"} <= others.keys():  # of this project
        kept = {key: others.pop(key) for key in Record.model_fields if key in others and key not in TRAINING}
        try:
            text = json.dumps(kept)
        except (TypeError, ValueError, RecursionError):
            text = ""
        meta = read_record(path, text)
    beside = {key: (type(value).__name__, "no weights") for key, value in others.items()}
    return Contents(weights, {}, meta, TORCH, beside)


def write(path: Path, tensors: Mapping[str, Tensor], meta: dict, framework: str) -> None:
    """Write tensors of a framework's names with a record; raises InputError as `atomic_write` does."""
    if path.suffix not in PICKLED:
        write_checkpoint(path, {name: value.numpy() for name, value in tensors.items()}, meta, framework)
        return
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save({"format": FORMAT, **meta, "model": dict(tensors)}, file)
        except RuntimeError as error:  # how PyTorch passes on what writing raises
            raise OSError(str(error)) from None
