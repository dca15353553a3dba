"""Marks what a backend may override, where it is defined:

    @replaceable("numba", "cuda")
    def construct(self, x): ...

`ms_vireid/backends` has the replacements, in one table for each backend and device, whose keys are the marked methods
and functions themselves. `python parity/report.py --backends` prints them all. Call a marked function through its
module, as in `distance.masked_mean(...)`: that is where its replacement is put.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mindspore import nn, ops

from ms_vireid.command.names import BACKENDS


@dataclass(frozen=True)
class Replacement:
    """What a backend computes in the place of a method or a function.

    by: the function, called with the same arguments. cost: what a step costs without it. knows: whether it can compute
    a cell with these settings; by default it can compute all.
    """

    by: Callable
    cost: str = ""
    knows: Callable[[nn.Cell], bool] | None = None


Table = dict[Callable, Replacement]


@dataclass(frozen=True)
class Declaration:
    """A marked method or function, and the backends that override it. module: None for a method."""

    function: Callable
    name: str
    module: ModuleType | None
    backends: tuple[str, ...]

    @property
    def now(self) -> Any:
        """What is in its place: itself, unless another function was put there."""
        return getattr(self.owner if self.module is None else self.module, self.name, None)

    @property
    def owner(self) -> type:
        """The class of a method."""
        owner = sys.modules[self.function.__module__]
        for name in self.function.__qualname__.split(".")[:-1]:
            owner = getattr(owner, name)
        return owner


DECLARED: dict[Callable, Declaration] = {}
_complete: set[str] = set()  # backends whose tables have been checked


def replaceable(*backends: str) -> Callable[[Callable], Callable]:
    """Mark a method or a function that these backends override. Raises ValueError for unknown backends, and for those
    whose tables were checked without it."""

    def declare(function: Callable) -> Callable:
        method = "." in function.__qualname__
        _declare(function, function.__name__, None if method else sys.modules[function.__module__], backends)
        return function

    return declare


def declare_method(method: Callable, *backends: str) -> None:
    """Mark a method of MindSpore's."""
    _declare(method, method.__name__, None, backends)


def declare_function(module: ModuleType, name: str, *backends: str) -> None:
    """Mark a function of MindSpore's that is called as `module.name`."""
    _declare(getattr(module, name), name, module, backends)


def _declare(function: Callable, name: str, module: ModuleType | None, backends: tuple[str, ...]) -> None:
    if not backends or not set(backends) <= set(BACKENDS) - {"eager"}:  # which replaces nothing
        raise ValueError(f"{function.__qualname__}: @replaceable names unknown backends: {backends}")
    if late := _complete & set(backends):
        raise ValueError(f"{function.__qualname__}: no table of {', '.join(sorted(late))} has it")
    DECLARED[function] = Declaration(function, name, module, backends)


def check_tables(backend: str, tables: Iterable[Table]) -> None:
    """Raise ValueError unless a backend's tables, of all devices, have exactly what is marked for it. A table that is
    imported after another function was put in the place of a marked one gets the marked one as its key."""
    tables = list(tables)
    for table in tables:
        for key in [key for key in table if key not in DECLARED]:
            for function, declaration in DECLARED.items():
                if declaration.now is key:
                    table[function] = table.pop(key)
                    break
    replaced = {function for table in tables for function in table}
    declared = {function for function, declaration in DECLARED.items() if backend in declaration.backends}
    for function in replaced - declared:
        raise ValueError(f'{function.__qualname__}: {backend} replaces it, but it is not @replaceable("{backend}")')
    for function in declared - replaced:
        raise ValueError(f"{function.__qualname__}: no table of {backend} has it")
    _complete.add(backend)


def title(function: Callable) -> str:
    """The name of a function, or of a method's class without underscores."""
    return function.__qualname__.partition(".")[0].strip("_")


# MindSpore's layers and functions that models and losses use.
declare_method(nn.GELU.construct, "numba", "graph")
declare_method(nn.LayerNorm.construct, "numba", "graph")
declare_method(nn.Dense.construct, "numba", "graph")
declare_method(nn.Conv2d.construct, "numba", "graph")
declare_method(nn.Conv2dTranspose.construct, "graph")
declare_method(nn.BatchNorm2d.construct, "numba", "graph")  # also BatchNorm1d's
declare_method(nn.MaxPool2d.construct, "numba", "graph")
declare_method(nn.AvgPool2d.construct, "graph")
declare_function(ops, "cat", "graph", "cuda")
declare_function(ops, "stack", "cuda")
