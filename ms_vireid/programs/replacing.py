"""Tables of replacements for methods and functions, and their installation.

A table's key is a method (`nn.Dense.construct`), the qualified name of a method that this room may not import
("AdamW.update"), or a module and a function's name, `(ops, "cat")`, for a function called as `ops.cat`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MethodType, ModuleType

from mindspore import nn

Table = Mapping[Callable | str | tuple[ModuleType, str], Callable]
_REPLACED = "_replaced_methods"  # a cell's attribute with their names


def replace_methods(cells: Iterable[nn.Cell], table: Table) -> None:
    """Replace each cell's methods, also inherited ones, by the table's functions."""
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
    """The name of a function, or of a method's class."""
    if isinstance(key, tuple):
        return key[1]
    return (key if isinstance(key, str) else key.__qualname__).partition(".")[0].strip("_")


@contextmanager
def functions_in_place(table: Table) -> Iterator[None]:
    """Replace the table's functions in their modules within the block. A graph looks them up when it is compiled."""
    originals = {key: getattr(*key) for key in table if isinstance(key, tuple)}
    for module, name in originals:
        setattr(module, name, table[module, name])
    try:
        yield
    finally:
        for (module, name), function in originals.items():
            setattr(module, name, function)


@contextmanager
def as_written(model: nn.Cell) -> Iterator[None]:
    """Undo all replacements of the model's methods within the block."""
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
