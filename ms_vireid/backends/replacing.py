"""Installs tables of replacements for declared methods and functions (`ms_vireid.replaceable`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import NamedTuple

from mindspore import nn

from ms_vireid.backends import proven
from ms_vireid.backends.reading import REPLACED, Code, qualified
from ms_vireid.replaceable import DECLARED, Replacement, Table

REMEDY = "docs/extending.md#an-edit-is-left-to-mindspores-operators says how to get the speed back"


class KeptAsWritten(NamedTuple):
    """A kind of cell, or a function, that runs as it is written. cost: of a step, where that is known."""

    name: str
    reason: str
    cost: str

    def __str__(self) -> str:
        cost = f" ({self.cost})" if self.cost else ""
        name = proven.in_words(self.name).removesuffix(".construct").replace(".construct (", " (")
        return f"{name} runs as it is written, without its kernel{cost}: {self.reason}; {REMEDY}"


def install(
    cells: Sequence[nn.Cell], table: Table, records: proven.Records
) -> tuple[dict[Callable, Callable], list[KeptAsWritten]]:
    """Replace each cell's methods, also inherited ones, by the table's functions, where these stand for what the cell
    runs, and no others. cells: parents before their parts. Returns the functions of modules to replace, for
    `functions_in_place`, and what is kept, but not parts of what is replaced."""
    functions, kept, within, methods = {}, {}, set(), []
    for key, replacement in table.items():
        if DECLARED[key].module is None:
            methods.append((key, DECLARED[key]))
            continue
        _, reason = _difference(None, key, replacement, records)
        if reason is None:
            functions[key] = replacement.by
        else:
            kept[key] = KeptAsWritten(qualified(key), reason, replacement.cost)
    for cell in cells:
        attributes = vars(cell)
        for name in attributes.pop(REPLACED, ()):
            attributes.pop(name, None)
    for cell in cells:
        installed = []
        for key, declared in methods:
            of_cell = getattr(type(cell), declared.name, None)
            owner = declared.owner
            is_of = of_cell is key or (isinstance(owner, type) and isinstance(cell, owner))
            if not is_of or (of_cell is not key and of_cell in table):
                continue
            code, reason = _difference(cell, key, table[key], records)
            if reason is None:
                installed.append((declared.name, table[key]))
                within |= code.cells.keys() - {id(cell)}
            elif id(cell) not in within:
                kept.setdefault(key, KeptAsWritten(qualified(key), reason, table[key].cost))
        for name, replacement in installed:
            setattr(cell, name, MethodType(replacement.by, cell))
        if installed:
            vars(cell)[REPLACED] = tuple(name for name, _ in installed)
    return functions, list(kept.values())


def _difference(
    cell: nn.Cell | None, key: Callable, replacement: Replacement, records: proven.Records
) -> tuple[Code | None, str | None]:
    """What a cell, or a function, runs, and why the replacement does not stand for it; None if it does."""
    declared = DECLARED[key]
    if (now := declared.now if cell is None else getattr(type(cell), declared.name)) is not key:
        if isinstance(vars(type(cell)).get(declared.name), FunctionType) and type(cell) is not declared.owner:
            return None, f"{proven.in_words(qualified(type(cell)))} has its own"
        return None, f"{proven.in_words(qualified(now))} is called in its place"
    code = proven.read(cell, key, replacement)
    reason = proven.difference(records, key, code)
    if reason is None and replacement.knows is not None and not replacement.knows(cell):
        reason = "its kernel lacks its settings"
    return code, reason


@contextmanager
def functions_in_place(functions: Mapping[Callable, Callable]) -> Iterator[None]:
    """Replace functions in their modules within the block. A graph looks them up when it is compiled."""
    places = {function: DECLARED[function] for function in functions}
    for function, place in places.items():
        setattr(place.module, place.name, functions[function])
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
        for name in vars(cell).get(REPLACED, ())
    ]
    try:
        yield
    finally:
        for cell, name, function in replaced:
            setattr(cell, name, function)
