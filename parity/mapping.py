"""MindSpore's parameters by their PyTorch names. Both packages name their layers alike, so only the last part of a path
differs, and only in normalisations. Shapes are equal."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from mindspore import Parameter, nn

from ms_vireid.checkpoints.layouts import TORCH_NAMES
from ms_vireid.checkpoints.weights import COUNTER


class Twin(NamedTuple):
    """One parameter or buffer in both frameworks."""

    name: str  # in MindSpore
    torch_name: str
    parameter: Parameter


def twins(cell: nn.Cell) -> list[Twin]:
    """Every parameter and buffer of a network with its PyTorch name, in the network's order.

    Raises:
        ValueError: two of them would have one PyTorch name.
    """
    found: dict[int, Twin] = {}
    for path, layer in cell.cells_and_names():
        prefix = f"{path}." if path else ""
        for own, parameter in layer._params.items():
            if parameter is not None:
                found.setdefault(id(parameter), Twin(prefix + own, prefix + TORCH_NAMES.get(own, own), parameter))
    names = [twin.torch_name for twin in found.values()]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several parameters would be called {', '.join(repeated)} in PyTorch")
    return list(found.values())


def torch_names(cell: nn.Cell) -> dict[str, str]:
    """Return PyTorch's names by MindSpore's, which an optimiser knows."""
    return {twin.parameter.name: twin.torch_name for twin in twins(cell)}


def values(cell: nn.Cell) -> dict[str, np.ndarray]:
    """Copy all parameters and buffers, by PyTorch's names."""
    return {twin.torch_name: twin.parameter.asnumpy().copy() for twin in twins(cell)}


def counters(pairs: Iterable[Twin]) -> list[str]:
    """Return PyTorch's names of the BatchNorm counters, which MindSpore does not have."""
    statistic = ".running_mean"
    names = [pair.torch_name for pair in pairs]
    return [f"{name.removesuffix(statistic)}.{COUNTER}" for name in names if name.endswith(statistic)]


def differences(held: Mapping[str, Any], wanted: Mapping[str, Any], owner: str) -> list[str]:
    """Say in words every key that is missing, extra or misshapen in one of two sets of arrays or tensors."""
    shapes, expected = ({name: list(getattr(v, "shape", ())) for name, v in side.items()} for side in (held, wanted))
    problems = [f"{name} is missing" for name in expected if name not in shapes]
    problems += [f"{name} is not in the {owner}" for name in shapes if name not in expected]
    problems += [
        f"{name} is {shapes[name]}, the {owner}'s is {shape}"
        for name, shape in expected.items()
        if shapes.get(name, shape) != shape
    ]
    return problems
