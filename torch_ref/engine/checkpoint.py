"""Checkpoints as `ms_vireid.engine.checkpoint` writes them, in PyTorch's names."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ms_vireid.checkpoints.weights import STATES, Checkpoint, read_checkpoint, write_finite
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import TORCH
from torch_ref.optimizers.adamw import AdamW
from torch_ref.optimizers.sgd import SGD

_KEYS = {AdamW: STATES["adamw"], SGD: STATES["sgd"]}


def save_checkpoint(path: Path, model: nn.Module, meta: dict, optimizer: AdamW | SGD | None = None) -> None:
    """Write a model's weights and buffers, an optimizer's state and a record; raises InputError as `write_finite`."""
    tensors = model.state_dict()
    for name, weight in _trained(optimizer).items() if optimizer else ():
        state = optimizer.state[weight]
        tensors |= {f"{key}.{name}": state.get(key, torch.zeros_like(weight)) for key in _KEYS[type(optimizer)]}
    write_finite(path, {name: value.cpu().numpy() for name, value in tensors.items()}, meta, TORCH)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a file with PyTorch's names; raises InputError as `read_checkpoint` does."""
    return read_checkpoint(path, TORCH)


def load_model(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Set all of a model's parameters and buffers. Unless all fit, none is set and InputError is raised as by
    `Checkpoint.require`."""
    targets = model.state_dict()
    states = tuple(f"{key}." for keys in STATES.values() for key in keys)
    extra = [name for name in checkpoint.arrays if name not in targets and not name.startswith(states)]
    checkpoint.require({name: _kind(value) for name, value in targets.items()}, extra)
    model.load_state_dict({name: torch.tensor(checkpoint.arrays[name]) for name in targets})


def load_optimizer(optimizer: AdamW | SGD, checkpoint: Checkpoint) -> None:
    """Set an optimizer's state. Unless there is one and all of it fits, nothing is set and InputError is raised."""
    if "step" not in checkpoint.meta:
        raise InputError(f"{checkpoint.path}: holds no training state to resume from")
    keys, trained = _KEYS[type(optimizer)], _trained(optimizer)
    checkpoint.require({f"{key}.{name}": _kind(w.detach()) for name, w in trained.items() for key in keys})
    for name, weight in trained.items():
        state = {key: torch.from_numpy(checkpoint.arrays[f"{key}.{name}"]).to(weight.device) for key in keys}
        counted = {"step": torch.tensor(float(checkpoint.meta["step"]))} if isinstance(optimizer, AdamW) else {}
        optimizer.state[weight] = counted | state


def _trained(optimizer: AdamW | SGD) -> dict[str, nn.Parameter]:
    return {name: w for group in optimizer.groups for name, w in zip(group.names, group.parameters, strict=True)}


def _kind(value: Tensor) -> tuple:
    """Return the shape and NumPy's type."""
    return tuple(value.shape), value.cpu().numpy().dtype
