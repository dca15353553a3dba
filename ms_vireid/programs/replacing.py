"""Installs tables of replacements for declared methods and functions (`ms_vireid.devices.replaceable`)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import MethodType

from mindspore import nn

from ms_vireid.devices.replaceable import DECLARED, Table

_REPLACED = "_replaced_methods"  # a cell's attribute with their names


def replace_methods(cells: Iterable[nn.Cell], table: Table) -> None:
    """Replace each cell's methods, also inherited ones, by the table's functions, and no others."""
    names = {DECLARED[function].name for function in table if DECLARED[function].module is None}
    for cell in cells:
        attributes = vars(cell)
        for name in attributes.pop(_REPLACED, ()):
            attributes.pop(name, None)
        replacements = {name: table.get(getattr(type(cell), name, None)) for name in names}
        replacements = {name: function for name, function in replacements.items() if function}
        for name, function in replacements.items():
            setattr(cell, name, MethodType(function, cell))
        if replacements:
            attributes[_REPLACED] = tuple(replacements)


@contextmanager
def functions_in_place(table: Table) -> Iterator[None]:
    """Replace the table's functions in their modules within the block. A graph looks them up when it is compiled."""
    places = {function: DECLARED[function] for function in table if DECLARED[function].module is not None}
    for function, place in places.items():
        setattr(place.module, place.name, table[function])
    try:
        yield
    finally:
        for function, place in places.items():
            setattr(place.module, place.name, function)


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
