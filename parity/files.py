"""Checkpoint files as arrays by name: MindSpore's .ckpt, PyTorch's .pth, and .safetensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ms_vireid.command.errors import InputError
from ms_vireid.engine.checkpoint import save_arrays
from ms_vireid.files.checks import FORMAT, META_KEY, read_record, require_file
from ms_vireid.files.ckpt import read_ckpt
from ms_vireid.files.weights import write_safetensors as write_safetensors_file
from parity.mapping import COUNTER, STEP
from torch_ref.models.weight_file import PICKLED, WRAPPERS, read_pickled, read_safetensors, state_dict_of

READ = (".ckpt", *PICKLED, ".safetensors")
WRITTEN = (".ckpt", ".pth", ".pt", ".safetensors")
TORCH_ONLY = "torch"  # in a .ckpt's JSON: what PyTorch keeps and MindSpore does not, for the way back


@dataclass(frozen=True)
class Contents:
    """What a checkpoint file holds.

    weights: by the file's names. states: the optimizer's, by KEY.NAME with the weight's name. meta: the JSON saved
    with them, {} for a foreign file. learning_rates: of each parameter group, which only PyTorch keeps.
    beside: what else is there and is not converted, with its type.
    """

    weights: dict[str, Tensor]
    states: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    learning_rates: list[float] | None = None
    beside: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> Contents:
    """Read a file of any of the formats `READ`.

    Raises:
        InputError: no such file, another format, not whole, or something other than weights.
    """
    if path.suffix not in READ:
        raise InputError(f"{path}: its suffix is none of {', '.join(READ)}")
    require_file(path, "checkpoint file")
    if path.suffix == ".ckpt":
        return _read_ckpt(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pickled(path)


def _read_ckpt(path: Path) -> Contents:
    arrays, text = read_ckpt(path)
    meta = _meta(path, text)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    states = {name: value for name, value in tensors.items() if name.partition(".")[2] in tensors}
    weights = {name: value for name, value in tensors.items() if name not in states}
    try:
        torch_only = meta.pop(TORCH_ONLY, {})
        weights |= {name: torch.tensor(int(count)) for name, count in torch_only.get(COUNTER, {}).items()}
        rates = [float(rate) for rate in torch_only.get("learning_rates", [])]
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise InputError(f"{path}: its JSON is not as parity/convert.py writes it; use another copy") from None
    return Contents(weights, states, meta, rates or None)


def _meta(path: Path, text: str) -> dict[str, Any]:
    """The record that is saved with the weights, without the format's version."""
    return {key: value for key, value in read_record(path, text).items() if key != "format"}


def _read_safetensors(path: Path) -> Contents:
    weights, metadata = read_safetensors(path)
    if not weights:
        raise InputError(f"{path}: holds no weights")
    return Contents(weights, meta=_meta(path, metadata.get(META_KEY, "{}")))


def _read_pickled(path: Path) -> Contents:
    loaded = read_pickled(path)
    weights = {name: value.detach() for name, value in state_dict_of(loaded, path).items()}
    wrapper = next((key for key in WRAPPERS if isinstance(loaded.get(key), dict)), None)
    others = {key: value for key, value in loaded.items() if wrapper and key != wrapper}
    if "format" not in others or "config" not in others:  # not of this project
        return Contents(weights, beside={str(key): type(value).__name__ for key, value in others.items()})
    optimizer = others.pop("optimizer", None)
    try:
        meta = _meta(path, json.dumps(others))
        states, rates = ({}, None) if optimizer is None else _optimizer_states(optimizer, others[STEP])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a checkpoint that torch_ref has written ({error})") from None
    return Contents(weights, states, meta, rates)


def _optimizer_states(optimizer: dict, step: int) -> tuple[dict[str, Tensor], list[float]]:
    """torch.optim's state dict as tensors by KEY.NAME, and the groups' learning rates."""
    groups = optimizer["param_groups"]
    names = {index: name for group in groups for index, name in zip(group["params"], group["param_names"], strict=True)}
    states = {}
    for index, state in optimizer["state"].items():
        for key, value in state.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"{key} of {names[index]} is a {type(value).__name__}")
            if key != STEP:
                states[f"{key}.{names[index]}"] = value.detach()
            elif value.item() != step:
                raise ValueError(f"{names[index]} counts {value.item():g} steps, the file {step}")
    return states, [float(group["lr"]) for group in groups]


def write_ckpt(
    path: Path,
    parameters: Mapping[str, Tensor],
    meta: dict,
    counters: Mapping[str, int],
    learning_rates: list[float] | None,
) -> None:
    """Write a checkpoint of ms_vireid; raises InputError as `whole` does."""
    kept = {COUNTER: dict(counters)} if counters else {}
    if learning_rates is not None:
        kept["learning_rates"] = learning_rates
    arrays = {name: value.numpy() for name, value in parameters.items()}
    save_arrays(path, arrays, meta | ({TORCH_ONLY: kept} if kept else {}))


def write_safetensors(path: Path, weights: Mapping[str, Tensor], meta: dict) -> None:
    """Write weights by PyTorch's names with `meta` as JSON in the file's metadata; raises InputError as `whole`
    does."""
    arrays = {name: value.numpy() for name, value in weights.items()}
    write_safetensors_file(path, arrays, json.dumps({"format": FORMAT, **meta}))
