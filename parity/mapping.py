"""How MindSpore's parameters are called, and shaped, in PyTorch: rules by layer kind, applied to any network.

The two packages give their layers the same names, so a parameter's path differs only in its last part, and only in
the layers where the frameworks differ. A rule says so once for a kind of layer; nothing is listed by model.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from mindspore import Parameter, nn

# Own names in MindSpore -> in PyTorch; what is not listed is called alike.
_NORMALISATION = {"gamma": "weight", "beta": "bias"}
_BATCH_NORM = {**_NORMALISATION, "moving_mean": "running_mean", "moving_variance": "running_var"}
_RULES: tuple[tuple[type | tuple[type, ...], dict[str, str]], ...] = (
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _BATCH_NORM),
    ((nn.LayerNorm, nn.GroupNorm), _NORMALISATION),
    (nn.Embedding, {"embedding_table": "weight"}),
    (nn.PReLU, {"w": "weight"}),
)
_FLAT_KERNEL = (nn.Conv1d, nn.Conv1dTranspose)  # MindSpore's weight [out, in, 1, k] is PyTorch's [out, in, k]

# PyTorch counts the batches that a BatchNorm has seen, for a momentum of None, which is not used here; MindSpore does
# not.
COUNTER = "num_batches_tracked"
STEP = "step"  # torch.optim's own count of steps, which Adam's bias correction needs and SGD does not keep
# The optimizers' states of each weight, as torch.optim calls them and as MindSpore's are prefixed: KEY.NAME.
STATES = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}


@dataclass(frozen=True)
class Twin:
    """One parameter or buffer in both frameworks."""

    name: str  # in MindSpore
    torch_name: str
    shape: tuple[int, ...]  # in MindSpore
    torch_shape: tuple[int, ...]
    parameter: Parameter

    def to_torch(self, value: np.ndarray) -> np.ndarray:
        return value.reshape(self.torch_shape)

    def to_mindspore(self, value: np.ndarray) -> np.ndarray:
        return value.reshape(self.shape)


def twins(cell: nn.Cell) -> list[Twin]:
    """Every parameter and buffer of a network with its PyTorch name, in the network's order.

    Raises:
        ValueError: two of them would have one PyTorch name.
    """
    found: list[Twin] = []
    seen: set[int] = set()
    for path, layer in cell.cells_and_names():
        for own, parameter in layer._params.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            prefix = f"{path}." if path else ""
            shape = tuple(parameter.shape)
            torch_shape = shape
            if isinstance(layer, _FLAT_KERNEL) and own == "weight":
                torch_shape = (*shape[:2], *shape[3:])
            found.append(Twin(prefix + own, prefix + _torch_own_name(layer, own), shape, torch_shape, parameter))
    names = [twin.torch_name for twin in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several parameters would be called {', '.join(repeated)} in PyTorch")
    return found


def _torch_own_name(layer: nn.Cell, own: str) -> str:
    for kinds, names in _RULES:
        if isinstance(layer, kinds):
            return names.get(own, own)
    return own


def counters(pairs: Iterable[Twin]) -> list[str]:
    """PyTorch's names of the counters that the BatchNorms have there and not in MindSpore."""
    statistic = ".running_mean"
    names = [pair.torch_name for pair in pairs]
    return [f"{name.removesuffix(statistic)}.{COUNTER}" for name in names if name.endswith(statistic)]


def differences(held: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], owner: str) -> list[str]:
    """What stands between two sets of names with shapes: every key that is missing, extra or misshapen, in words."""
    problems = [f"{name} is missing" for name in wanted if name not in held]
    problems += [f"{name} is not in the {owner}" for name in held if name not in wanted]
    problems += [
        f"{name} is {list(held[name])}, the {owner}'s is {list(shape)}"
        for name, shape in wanted.items()
        if name in held and tuple(held[name]) != tuple(shape)
    ]
    return problems


def with_step(state: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    """One weight's state as torch.optim keeps it: Adam's counts the steps, and first."""
    return {STEP: torch.tensor(float(step)), **state} if "exp_avg" in state else state
