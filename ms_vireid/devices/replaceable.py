"""What a program may compute otherwise is declared where it is defined, with the programs that do:

    @replaceable("numba", "cuda")
    def construct(self, x): ...

`ms_vireid/programs` has the replacements, in one table for each program and device, whose keys are the declared methods
and functions themselves. `python parity/report.py --programs` prints them all. Call a declared function through its
module, as in `distance.masked_mean(...)`: that is where its replacement is put.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mindspore import nn, ops

from ms_vireid.command.names import PROGRAMS


@dataclass(frozen=True)
class Replacement:
    """What computes a method or a function otherwise.

    by: the function, called with the same arguments. cost: what a step costs without it. knows: whether it computes a
    cell with these settings; by default it computes all.
    """

    by: Callable
    cost: str = ""
    knows: Callable[[nn.Cell], bool] | None = None


Table = dict[Callable, Replacement]


@dataclass(frozen=True)
class Declaration:
    """A declared method or function, and the programs that compute it otherwise. module: None for a method."""

    function: Callable
    name: str
    module: ModuleType | None
    programs: tuple[str, ...]

    @property
    def now(self) -> Any:
        """What is in its place: itself, unless somebody has put another function there."""
        return getattr(self.owner if self.module is None else self.module, self.name, None)

    @property
    def owner(self) -> type:
        """The class of a method."""
        owner = sys.modules[self.function.__module__]
        for name in self.function.__qualname__.split(".")[:-1]:
            owner = getattr(owner, name)
        return owner


DECLARED: dict[Callable, Declaration] = {}
_complete: set[str] = set()  # programs whose tables have been checked


def replaceable(*programs: str) -> Callable[[Callable], Callable]:
    """Declare a method or a function. Raises ValueError unless each program's tables replace it."""

    def declare(function: Callable) -> Callable:
        method = "." in function.__qualname__
        _declare(function, function.__name__, None if method else sys.modules[function.__module__], programs)
        return function

    return declare


def declare_method(method: Callable, *programs: str) -> None:
    """Declare a method of MindSpore's."""
    _declare(method, method.__name__, None, programs)


def declare_function(module: ModuleType, name: str, *programs: str) -> None:
    """Declare a function of MindSpore's that is called as `module.name`."""
    _declare(getattr(module, name), name, module, programs)


def _declare(function: Callable, name: str, module: ModuleType | None, programs: tuple[str, ...]) -> None:
    if not programs or not set(programs) <= set(PROGRAMS) - {"eager"}:  # which replaces nothing
        raise ValueError(f"{function.__qualname__}: is computed otherwise by {programs}, which are no such programs")
    if late := _complete & set(programs):
        raise ValueError(f"{function.__qualname__}: no table of {', '.join(sorted(late))} has it")
    DECLARED[function] = Declaration(function, name, module, programs)


def check_tables(program: str, tables: Iterable[Table]) -> None:
    """Raise ValueError unless a program's tables, of all devices, have exactly what is declared for it. A table that is
    imported after somebody has put another function in the place of a declared one gets the declared one as its key."""
    tables = list(tables)
    for table in tables:
        for key in [key for key in table if key not in DECLARED]:
            for function, declaration in DECLARED.items():
                if declaration.now is key:
                    table[function] = table.pop(key)
                    break
    replaced = {function for table in tables for function in table}
    declared = {function for function, declaration in DECLARED.items() if program in declaration.programs}
    for function in replaced - declared:
        raise ValueError(
            f'{function.__qualname__}: {program} replaces it, which @replaceable("{program}") does not say'
        )
    for function in declared - replaced:
        raise ValueError(f"{function.__qualname__}: no table of {program} has it")
    _complete.add(program)


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
