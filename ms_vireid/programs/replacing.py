"""What takes the place of methods and functions: tables, and how they are put in place.

A key of a table is a method (`nn.Dense.construct`); the qualified name of one that this room may not import
("AdamW.update"); or a function as a module and a name, `(ops, "cat")`, which code calls as `ops.cat`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MethodType, ModuleType

from mindspore import nn

Table = Mapping[Callable | str | tuple[ModuleType, str], Callable]
_REPLACED = "_replaced_methods"  # attribute of a cell: their names


def replace_methods(cells: Iterable[nn.Cell], table: Table) -> None:
    """Give each cell the table's functions in place of its methods, also of inherited ones."""
    methods = [key for key in table if not isinstance(key, tuple)]
    names = {(key if isinstance(key, str) else key.__name__).rpartition(".")[2] for key in methods}
    for cell in cells:
        replaced = set(vars(cell).get(_REPLACED, ()))
        for name in names:
            method = getattr(type(cell), name, None)
            function = table.get(method) or table.get(f"{type(cell).__name__}.{name}")
            if function:
                setattr(cell, name, MethodType(function, cell))
                replaced.add(name)
        if replaced:
            vars(cell)[_REPLACED] = replaced


def name_of(key: Callable | str | tuple[ModuleType, str]) -> str:
    """A function's, and of a method its class's."""
    if isinstance(key, tuple):
        return key[1]
    return (key if isinstance(key, str) else key.__qualname__).partition(".")[0].strip("_")


@contextmanager
def functions_in_place(table: Table) -> Iterator[None]:
    """Within this block the table's functions are those that their modules have. A graph looks for them when it is
    compiled."""
    replaced = {key: getattr(*key) for key in table if isinstance(key, tuple)}
    for module, name in replaced:
        setattr(module, name, table[module, name])
    try:
        yield
    finally:
        for (module, name), function in replaced.items():
            setattr(module, name, function)


@contextmanager
def as_written(model: nn.Cell) -> Iterator[None]:
    """Within this block the model's cells compute by their own methods."""
    replaced = [
        (cell, name, vars(cell).pop(name))
        for _, cell in model.cells_and_names()
        for name in vars(cell).get(_REPLACED, ())
    ]
    try:
        yield
    finally:
        for cell, name, function in replaced:
            setattr(cell, name, function)
