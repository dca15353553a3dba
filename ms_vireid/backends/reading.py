"""Reads what a method of a cell, or a function, runs: all code of this project, the layers of MindSpore, and the parts.

A replacement computes what it was proven against and nothing else. So that nobody keeps a list by hand, that is read
from the code itself, starting from a live cell: `self.mlp` is looked up on the cell, `distances.hinge` in its module.
An assignment at run time (`vit.Mlp.construct = ...`) is seen as an edit of the file is.
"""

import ast
import functools
import hashlib
import inspect
import linecache
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from mindspore import Parameter, Tensor, nn, ops

PROJECT = "ms_vireid"
REPLACED = "_replaced_methods"  # a cell's attribute: the names of its methods that a backend replaces
_IGNORED = {"ctx", "kind", "type_comment", "type_params", "annotation", "returns", "decorator_list"}
_HOOKS = (
    *("_lazy_forward_pre_hook", "_lazy_forward_hook", "_lazy_backward_pre_hook", "_lazy_backward_hook"),
    *("_lazy_forward_pre_hook_with_kwargs", "_lazy_forward_hook_with_kwargs", "_cell_backward_pre_hook"),
    "_cell_backward_hook",
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CASTS = ("fp16", "fp32", "bf16")  # flags of `Cell.to_float`
NO_SOURCE = "no source"


@dataclass
class Code:
    """What was read. functions: a digest of each function, constant and class, by name. parts: the class of each part,
    by its path from the cell; `blocks.*` stands for all of a list. hooked: paths of parts with hooks. cells: all parts,
    by id."""

    functions: dict[str, str] = field(default_factory=dict)
    parts: dict[str, set[str]] = field(default_factory=dict)
    hooked: list[str] = field(default_factory=list)
    cells: dict[int, nn.Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class _References:
    """What a function's syntax tree names. chains: dotted names, as tuples. supers: methods of `super()`. called:
    attributes of the first argument of which nothing is used but their call; empty if that argument goes elsewhere.
    by_class: what is called with that argument as a method of a class, in full; only_by_class: whether that is all that
    is done with it."""

    digest: str
    first: str | None
    chains: frozenset[tuple[str, ...]]
    supers: frozenset[str]
    called: frozenset[str]
    by_class: frozenset[str]
    only_by_class: bool


def code_of_method(cell: nn.Cell, name: str, delegated: frozenset[str] | None = frozenset()) -> Code:
    """Read what a cell's method runs. delegated: parts that the replacement calls as the method does; None: it calls
    the method."""
    reader = _Reader(delegated or frozenset())
    reader.part(cell, "", name if delegated is not None else None)
    return reader.code


def code_of_function(function: Callable) -> Code:
    """Read what a function runs that is not a method."""
    reader = _Reader(frozenset())
    reader.value(function, qualified(function), ())
    return reader.code


def hooked(model: nn.Cell) -> str | None:
    """The name of a cell with hooks, "" for the model itself; None if there is none."""
    return next((name for name, cell in model.cells_and_names() if has_hooks(cell)), None)


def replaced(cell: nn.Cell) -> tuple[str, ...]:
    """The names of a cell's methods that a backend replaces."""
    return vars(cell).get(REPLACED, ())


def called_only(replacement: Callable, original: Callable) -> frozenset[str] | None:
    """The attributes of a cell that a replacement only calls, as `self.proj(x)`: parts among them compute as they are.
    It may also call the original by its class, `Attention.construct(self, x)`. None if it does nothing else with the
    cell: then it stands for the original, whatever that runs."""
    references = _references(replacement)
    if references is None or any(_named(name, replacement) is not original for name in references.by_class):
        return frozenset()
    return None if references.only_by_class else references.called


def _class_of(cell: nn.Cell | None, name: str, function: FunctionType) -> type | None:
    """The class whose method a function calls with this cell, as `Dense.construct(self, x)`, if it is one of the
    cell's."""
    of = _named(name.rpartition(".")[0], function)
    return of if isinstance(of, type) and cell is not None and isinstance(cell, of) else None


def _named(name: str, function: FunctionType) -> Any:
    """What a dotted name is in a function."""
    first, *attributes = name.split(".")
    value = _names_seen_by(function).get(first)
    for attribute in attributes:
        value = getattr(value, attribute, None)
    return value


def qualified(value: Any) -> str:
    """The full name of a function or class, without this project's."""
    return f"{value.__module__}.{value.__qualname__}".removeprefix(f"{PROJECT}.")


def digest_of(function: Callable) -> str:
    """The digest of a function's syntax tree, without comments, docstrings, annotations and decorators."""
    references = _references(function)
    return references.digest if references else NO_SOURCE


class _Reader:
    def __init__(self, delegated: frozenset[str]):
        self.code = Code()
        self._delegated = delegated
        self._read: set[tuple[int, str, str]] = set()

    def part(self, cell: nn.Cell, path: str, method: str | None = "construct") -> None:
        """Read a method of a cell, and who the cell is."""
        self.code.parts.setdefault(path, set()).add(_label(cell))
        self.code.cells[id(cell)] = cell
        if has_hooks(cell) and path not in self.code.hooked:
            self.code.hooked.append(path)
        for special in ("bprop", "__call__"):
            if _owner(type(cell), special) not in (nn.Cell, None) or special in vars(cell):
                self.method(cell, special, path)
        if method is not None:
            self.method(cell, method, path)

    def method(self, cell: nn.Cell, name: str, path: str, within: tuple[type, ...] = ()) -> None:
        """Read a method. within: the classes that are asked for it, where the cell's own is not."""
        owner = _owner(type(cell), name, within)
        if owner is None:
            return
        place, function = f"{qualified(owner)}.{name}", vars(owner)[name]
        if not within and name in vars(cell) and name not in replaced(cell):
            place, function = f"{place} of one cell", vars(cell)[name]
        self._function(place, _plain_function(function), cell, path, owner)

    def _function(self, place: str, function: Any, cell: nn.Cell | None, path: str, owner: type | None) -> None:
        if (id(cell), place, path) in self._read:
            return
        self._read.add((id(cell), place, path))
        references = _references(function)
        self._note(place, references.digest if references else NO_SOURCE)
        if references is None or (cell is None and not place_of(function).startswith(PROJECT)):
            return
        names, classes = _names_seen_by(function), type(cell).__mro__
        by_class = {name: of for name in references.by_class if (of := _class_of(cell, name, function))}
        for root, *attributes in references.chains:
            if ".".join((root, *attributes)) in by_class:
                continue
            if cell is not None and root == references.first:
                delegated = attributes and path == "" and attributes[0] in self._delegated
                if attributes and not (delegated and isinstance(getattr(cell, attributes[0], None), nn.Cell)):
                    self._attribute(cell, tuple(attributes), path)
            elif root in names:
                self.value(names[root], f"{place_of(function)}.{root}".removeprefix(f"{PROJECT}."), tuple(attributes))
        for name in references.supers if cell is not None else ():
            self.method(cell, name, path, classes[classes.index(owner) + 1 :])
        for name, of in by_class.items():
            self.method(cell, name.rpartition(".")[2], path, classes[classes.index(of) :])

    def _attribute(self, cell: nn.Cell, attributes: tuple[str, ...], path: str) -> None:
        name, *further = attributes
        if _is_method(cell, name):
            self.method(cell, name, path)
            return
        value = getattr(cell, name, None)
        place = f"{path}.{name}" if path else name
        if isinstance(value, nn.CellList | tuple | list):
            for element in value:
                if isinstance(element, nn.Cell):
                    self.part(element, f"{place}.*")
        elif isinstance(value, nn.Cell):
            self.part(value, place)
            if further:
                self._attribute(value, tuple(further), place)
        elif not isinstance(value, (Parameter, Tensor, *_PLAIN)):
            self.code.parts.setdefault(place, set()).add(type(value).__name__)

    def _note(self, name: str, digest: str) -> None:
        """A wrapper has the name of what it wraps: then the two are not what one of them is."""
        known = self.code.functions.setdefault(name, digest)
        if digest not in known.split(" and "):
            self.code.functions[name] = " and ".join(sorted([*known.split(" and "), digest]))

    def value(self, value: Any, name: str, attributes: tuple[str, ...]) -> None:
        """Read what a name of a module stands for."""
        while attributes and isinstance(value, ModuleType | type):
            attribute, *attributes = attributes
            owner = value.__name__ if isinstance(value, ModuleType) else qualified(value)
            name = f"{owner}.{attribute}".removeprefix(f"{PROJECT}.")
            value = inspect.getattr_static(value, attribute, None)
        value = _plain_function(value)
        if isinstance(value, ModuleType):
            return
        if isinstance(value, FunctionType):
            if place_of(value).startswith(PROJECT):
                self._function(qualified(value), value, None, "", None)
            else:
                self._note(qualified(value), "")
        elif isinstance(value, type):
            self._note(qualified(value), ascii(getattr(value, "_fields", "")))
        elif isinstance(value, nn.Cell):
            self.part(value, name)
        elif _is_plain(value):
            self._note(name, ascii(value))
        elif isinstance(value, Tensor):
            self._note(name, _digest(ascii((value.shape, str(value.dtype), value.asnumpy().tobytes()))))
        else:
            self._note(name, "")  # of MindSpore or NumPy


def has_hooks(cell: nn.Cell) -> bool:
    return any(getattr(cell, hooks, None) for hooks in _HOOKS)


def place_of(function: Callable) -> str:
    """The module that a function is of."""
    return function.__module__ or ""


def _owner(of: type, name: str, classes: tuple[type, ...] = ()) -> type | None:
    """The class that defines a method of `of`, or of its `classes`."""
    return next((owner for owner in classes or of.__mro__ if name in vars(owner)), None)


def _is_method(cell: nn.Cell, name: str) -> bool:
    if name in vars(cell) and not callable(vars(cell)[name]):  # `shard` of a model's is no method of `nn.Cell`
        return False
    owner = _owner(type(cell), name)
    return owner is not None and isinstance(_plain_function(vars(owner)[name]), FunctionType)


def _plain_function(value: Any) -> Any:
    """The function behind a static or class method, a property, `functools.cache` or `ops.constexpr`: not behind a
    decorator, which may do anything."""
    while True:
        if isinstance(value, staticmethod | classmethod | MethodType):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, functools._lru_cache_wrapper):
            value = value.__wrapped__
        elif isinstance(value, ops.Primitive) and callable(getattr(value, "fn", None)):
            value = value.fn
        else:
            return value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return isinstance(value, _PLAIN)


def _label(cell: nn.Cell) -> str:
    """A cell's class, with the parts of one that runs them in order, and the type that it was told to compute in."""
    name = qualified(type(cell))
    if isinstance(cell, nn.SequentialCell):
        name += f"({', '.join(_label(part) for part in cell)})"
    casts = [flag for flag in _CASTS if cell.get_flags().get(flag)]
    return " as ".join([name, *casts])


def _names_seen_by(function: FunctionType) -> dict[str, Any]:
    """Global names and those of enclosing functions."""
    names = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        with suppress(ValueError):  # a function that is not defined yet
            names[name] = cell.cell_contents
    return names


@functools.cache
def _read(code: CodeType, file: str) -> _References | None:
    """Read a function's source; None if there is none, or if it is not what runs, as a file may have changed since it
    was imported. file: codes of two files may be equal, while defaults differ."""
    node, compiled = _functions_of(file).get((code.co_name, code.co_firstlineno), (None, None))
    if compiled is None or _content(compiled) != _content(code):
        return None
    body = ast.Module(node.body, [])
    arguments = [*node.args.posonlyargs, *node.args.args]
    first = arguments[0].arg if arguments else None
    chains, supers = set(), set()
    for statement in (body, *node.args.defaults, *filter(None, node.args.kw_defaults)):
        for chain in _chains(statement):
            (supers if chain[0] == "super()" else chains).add(chain)
    return _References(
        _digest(_dump(node)),
        first,
        frozenset(chain for chain in chains if chain[0] == first or chain[0] not in code.co_varnames),
        frozenset(chain[1] for chain in supers if len(chain) > 1),
        *_called(body, first),
    )


def _references(function: Any) -> _References | None:
    """As `_read`; None for what is no function of Python."""
    return _read(function.__code__, function.__code__.co_filename) if isinstance(function, FunctionType) else None


@functools.cache
def _functions_of(file: str) -> dict[tuple[str, int], tuple[ast.FunctionDef, CodeType | None]]:
    """The functions that a file has now, by name and first line: their syntax trees, and the code of each."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return {}
    compiled = _codes(compile(tree, file, "exec", dont_inherit=True))
    codes = {(code.co_name, code.co_firstlineno): code for code in compiled}
    functions = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            place = node.name, min(part.lineno for part in (node, *node.decorator_list))
            functions[place] = node, codes.get(place)
    return functions


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _content(code: CodeType) -> tuple:
    """What a code does, wherever it stands."""
    constants = [_content(each) if isinstance(each, CodeType) else ascii(each) for each in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, constants


def _chains(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Dotted names, each as long as it goes, without annotations; "super()" stands for that call."""
    attributes, node = [], tree
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id, *reversed(attributes)
    elif attributes and isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super":
        yield "super()", *reversed(attributes)
    else:
        node = tree if not attributes else node
        for name, value in ast.iter_fields(node):
            if name not in _IGNORED:
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        yield from _chains(child)


def _called(tree: ast.AST, first: str | None) -> tuple[frozenset[str], frozenset[str], bool]:
    """`called`, `by_class` and `only_by_class` of `_References`."""
    used, called, by_class, elsewhere = [], [], set(), 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == first:
            elsewhere += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == first:
            used.append(node.attr)
            elsewhere -= 1
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if isinstance(node.func.value, ast.Name) and node.func.value.id == first:
                called.append(node.func.attr)
            elif node.args and isinstance(node.args[0], ast.Name) and node.args[0].id == first:
                by_class.add(ast.unparse(node.func))
                elsewhere -= 1
    only = {name for name in called if called.count(name) == used.count(name)} if not elsewhere else set()
    return frozenset(only), frozenset(by_class), bool(by_class) and not elsewhere and not used


def _dump(node: ast.AST) -> str:
    """A syntax tree as text, the same with every Python: without positions, docstrings and annotations."""
    fields = []
    for name, value in ast.iter_fields(node):
        if name in _IGNORED or value is None or value == []:
            continue
        if name == "body" and isinstance(value, list) and isinstance(node, ast.FunctionDef | ast.ClassDef):
            value = [each for each in value if not _is_text(each)]
        if isinstance(value, list):
            text = ",".join(_dump(each) if isinstance(each, ast.AST) else ascii(each) for each in value)
        else:
            text = _dump(value) if isinstance(value, ast.AST) else ascii(value)
        fields.append(f"{name}=[{text}]")
    return f"{type(node).__name__}({';'.join(fields)})"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
