"""Every function and method of models, losses and optimisers, found in the code, and what a user might do to it."""

import ast
import gc
import importlib
import inspect
import linecache
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from ms_vireid.backends.reading import _is_text, _plain_function

ROOMS = ("models", "losses", "optimizers")
PACKAGE = Path(__file__).parents[2] / "ms_vireid"
SCALE = 1.25
SCALED_NAME = "_scaled_by_an_edit"


@dataclass(frozen=True)
class Edit:
    """kind: scaled, constant, value, subclass, hook, evaluation or frozen. place: module and qualified name. number: of
    the constant."""

    kind: str
    module: str
    name: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind}: {self.module}.{self.name}{f' [{self.number}]' if self.number else ''}"

    @classmethod
    def named(cls, text: str) -> "Edit":
        return next(edit for edit in edits() if str(edit) == text)

    @property
    def place(self) -> str:
        return f"{self.module}.{self.name}"


def modules() -> Iterator[tuple[str, ModuleType]]:
    for room in ROOMS:
        for path in sorted((PACKAGE / room).glob("*.py")):
            if path.stem != "__init__":
                yield f"{room}.{path.stem}", importlib.import_module(f"ms_vireid.{room}.{path.stem}")


def functions() -> Iterator[tuple[str, str, FunctionType]]:
    """(module, qualified name, function) of each function and method, as the code has them."""
    for name, module in modules():
        for value in vars(module).values():
            within = (
                vars(value).values() if isinstance(value, type) and value.__module__ == module.__name__ else [value]
            )
            for function in map(_plain_function, within):
                if isinstance(function, FunctionType) and function.__code__.co_filename == module.__file__:
                    yield name, function.__qualname__, function


def classes() -> Iterator[tuple[str, type]]:
    for name, module in modules():
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, nn.Cell) and value.__module__ == module.__name__:
                yield name, value


def edits() -> list[Edit]:
    """All of them."""
    found = []
    for module, name, function in functions():
        node = definition(function)
        found.append(Edit("scaled", module, name))
        found += [Edit("constant", module, name, number) for number in range(len(_floats(node)))]
    for name, module in modules():
        for constant, value in vars(module).items():
            if isinstance(value, float) and constant.isupper():
                found.append(Edit("value", name, constant))
    for module, of in classes():
        found += [Edit(kind, module, of.__name__) for kind in ("subclass", "hook", "evaluation", "frozen")]
    return found


def definition(function: FunctionType) -> ast.FunctionDef:
    lines = linecache.getlines(function.__code__.co_filename)
    block = "".join(inspect.getblock(lines[function.__code__.co_firstlineno - 1 :]))
    return ast.parse(f"if True:\n{block}").body[0].body[0] if block[:1].isspace() else ast.parse(block).body[0]


def _floats(node: ast.AST) -> list[ast.Constant]:
    return [each for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, float)]


def changed(value: float) -> float:
    """Another number of the same sign, that a user would notice."""
    return 0.25 if value == 0.0 else value * 1000.0 if abs(value) < 1e-3 else value * 0.5


def scaled(value):
    """A result, tensors of numbers scaled."""
    if isinstance(value, Parameter):
        return value
    if isinstance(value, Tensor):
        return value * SCALE if value.dtype == ms.float32 or value.dtype == ms.float16 else value
    if isinstance(value, tuple):
        results = ()
        for each in value:
            results += (scaled(each),)
        return results
    if isinstance(value, float):
        return value * SCALE
    return value


class _ScaleReturns(ast.NodeTransformer):
    def visit_Return(self, node: ast.Return) -> ast.Return:
        if node.value is None:
            return node
        return ast.Return(ast.Call(ast.Name(SCALED_NAME, ast.Load()), [node.value], []))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return node  # what is within a function returns to it

    visit_Lambda = visit_FunctionDef  # noqa: N815


@contextmanager
def applied_to_code(edit: Edit, folder: Path) -> Iterator[None]:
    """Edit the file, as it were: the function's code is that of an edited file."""
    if edit.kind == "value":
        module = importlib.import_module(f"ms_vireid.{edit.module}")
        before = getattr(module, edit.name)
        owners = [
            other
            for other in list(sys.modules.values())
            if (getattr(other, "__name__", "") or "").startswith("ms_vireid.") and vars(other).get(edit.name) is before
        ]
        for owner in owners:
            setattr(owner, edit.name, changed(before))
        try:
            yield
        finally:
            for owner in owners:
                setattr(owner, edit.name, before)
        return
    if edit.kind not in ("scaled", "constant"):
        yield
        return
    function = next(f for module, name, f in functions() if (module, name) == (edit.module, edit.name))
    node = definition(function)
    if edit.kind == "scaled":
        node.body = [_ScaleReturns().visit(statement) for statement in node.body]
    else:
        constant = _floats(node)[edit.number]
        constant.value = changed(constant.value)
    node.decorator_list = []
    code, globals_before = function.__code__, dict(function.__globals__)
    function.__globals__[SCALED_NAME] = scaled
    try:
        function.__code__ = _compiled(node, function, folder)
        _clear_caches(function)
        yield
    finally:
        function.__code__ = code
        function.__globals__.pop(SCALED_NAME, None)
        function.__globals__.update(globals_before)
        _clear_caches(function)


def _compiled(node: ast.FunctionDef, function: FunctionType, folder: Path) -> CodeType:
    """Compile a function from a file of its own, with the free names of the code that it replaces."""
    code = function.__code__
    # Without a docstring, whose lines would not be indented as the code is.
    node.body = [each for each in node.body if not _is_text(each)] or [ast.Pass()]
    free = [name for name in code.co_freevars if name != "__class__"]
    within = ast.parse("def f():\n class C: pass").body[0]
    within.body[0].body = [node]
    within.body[:0] = [ast.Assign([ast.Name(name, ast.Store())], ast.Constant(None)) for name in free]
    tree = ast.fix_missing_locations(ast.Module([within], []))
    text = ast.unparse(tree) + "\n"
    compiled = compile(text, str(_written(text, folder)), "exec")
    return next(found for found in _codes(compiled) if found.co_name == code.co_name)


def _written(text: str, folder: Path) -> Path:
    """A file of its own, which the code that it has is read from."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir=folder, delete=False) as file:
        file.write(text)
    return Path(file.name)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _clear_caches(function: FunctionType) -> None:
    """What is cached may hold the results of before."""
    for referrer in gc.get_referrers(function):
        if hasattr(referrer, "cache_clear"):
            referrer.cache_clear()
    from ms_vireid.models import layers, noise

    for module in (layers, noise):
        for value in vars(module).values():
            cached = getattr(value, "fn", value)
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()


def apply_to_cells(edit: Edit, cells: list[nn.Cell], folder: Path) -> bool:
    """Do to cells of the class what the edit says; whether there are any. Weights are frozen before an optimiser is
    made, all others changed after the model is in training mode."""
    of = [cell for cell in cells if type(cell).__name__ == edit.name]
    if not of:
        return False
    if edit.kind == "subclass":
        of[-1].__class__ = _subclass(type(of[-1]), folder)
    elif edit.kind == "hook":
        of[-1].register_forward_hook(lambda _cell, _inputs, output: scaled(output))
    elif edit.kind == "evaluation":
        of[-1].set_train(False)
    elif edit.kind == "frozen":
        weight = next(iter(of[-1].trainable_params()), None)
        if weight is None:
            return False
        weight.requires_grad = False
    return True


SUBCLASS = """
from tests.edits.sites import scaled
from {module} import {name}


class Sub{name}({name}):
    def construct(self, *inputs):
        return scaled(super().construct(*inputs))
"""


def _subclass(of: type, folder: Path) -> type:
    text = SUBCLASS.format(module=of.__module__, name=of.__name__)
    module = ModuleType(f"edited_{of.__name__}_{id(of)}")
    module.__file__ = str(_written(text, folder))
    sys.modules[module.__name__] = module
    exec(compile(text, module.__file__, "exec"), vars(module))
    return vars(module)[f"Sub{of.__name__}"]
