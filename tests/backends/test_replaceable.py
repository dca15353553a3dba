"""What backends compute otherwise is declared where it is defined, and each model has its own rows."""

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest
from mindspore import Tensor, mint, nn, ops

from ms_vireid import replaceable as declared
from ms_vireid.backends import proven
from ms_vireid.backends.backend import Backend
from ms_vireid.backends.eager import Eager
from ms_vireid.backends.graph import TABLES
from ms_vireid.backends.numba import Numba
from ms_vireid.backends.reading import code_of_method, qualified
from ms_vireid.models.layers import GeM
from ms_vireid.replaceable import DECLARED, Replacement, check_tables, replaceable
from parity.backends import rows

ROOT = Path(__file__).parents[2]
SOURCES = [path for room in ("models", "losses", "optimizers") for path in (ROOT / "ms_vireid" / room).glob("*.py")]


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    before = dict(DECLARED)
    monkeypatch.setattr(declared, "_complete", set())
    yield
    DECLARED.clear()
    DECLARED.update(before)


class Layer(nn.Cell):
    def construct(self, x):
        return x


def twice(self, x):
    return 2 * x


def test_a_key_that_is_not_declared_is_an_error():
    line = r'^Layer\.construct: numba replaces it, but it is not @replaceable\("numba"\)$'
    with pytest.raises(ValueError, match=line):
        check_tables("numba", [*Numba.tables.values(), {Layer.construct: twice}])


def test_what_is_declared_and_in_no_table_is_an_error():
    replaceable("numba")(Layer.construct)
    with pytest.raises(ValueError, match=r"^Layer\.construct: no table of numba has it$"):
        check_tables("numba", Numba.tables.values())


def test_what_is_declared_after_the_tables_were_checked_is_an_error():
    check_tables("numba", Numba.tables.values())
    with pytest.raises(ValueError, match=r"^Layer\.construct: no table of numba has it$"):
        replaceable("numba")(Layer.construct)


@pytest.mark.parametrize("backends", [(), ("kernels",), ("numba", "eager")])
def test_what_no_backend_computes_is_an_error(backends):
    with pytest.raises(ValueError, match=r"^Layer\.construct: @replaceable names unknown backends: "):
        replaceable(*backends)(Layer.construct)


def test_a_replacement_left_out_is_an_error():
    incomplete = [{key: by for key, by in table.items() if key is not GeM.construct} for table in TABLES.values()]
    with pytest.raises(ValueError, match=r"^GeM\.construct: no table of graph has it$"):
        check_tables("graph", incomplete)


def called(path):
    """Names that a file imports from a module, and the attributes that it calls functions by."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


def test_a_declared_function_is_called_through_its_module():
    """Its replacement is put there: a name of another module's would stay as it was."""
    functions = {
        (place.module.__name__, place.name) for place in DECLARED.values() if isinstance(place.module, ModuleType)
    }
    assert ("ms_vireid.losses.distance", "masked_mean") in functions
    exported = {path for path in SOURCES if path.name == "__init__.py"}
    imported = {(path.name, *name) for path in set(SOURCES) - exported for name in called(path) if name in functions}
    assert imported == set()


def test_no_twin_of_a_replaced_function_of_mindspores_is_called():
    """`ops.concat` is `ops.cat` by another name, and nothing would replace it."""
    twins = {
        *(("ops", name) for name in ("concat", "hstack", "vstack", "column_stack", "Concat", "Stack", "Softplus")),
        *(("mint", name) for name in ("cat", "stack")),
    }
    assert all(hasattr(ops if module == "ops" else mint, name) or module == "ops" for module, name in twins)
    assert {(path.name, *name) for path in SOURCES for name in called(path) if name in twins} == set()


def test_a_model_is_prepared_any_number_of_times(monkeypatch):
    class Twice(Backend):
        tables = {"CPU": {Layer.construct: Replacement(twice)}}  # noqa: RUF012

    replaceable("numba")(Layer.construct)
    backend, x, models = Twice(), Tensor([1.0]), [Layer(), Layer()]
    row = {qualified(Layer.construct): proven.recorded([code_of_method(models[0], "construct")])}
    monkeypatch.setattr(proven, "record", lambda: {"twice": {"CPU": row}})
    computations = [backend.accelerate(model) for model in models]
    assert computations[0] is not computations[1]
    assert backend.accelerate(models[0]) is computations[0]
    Eager().accelerate(models[1])
    assert [float(model(x)) for model in models] == [2, 1]


def test_all_that_is_declared_is_listed():
    assert {backend for _, backend, *_ in rows()} == {"numba", "graph", "cuda"}
    assert len({name for name, *_ in rows()}) == len(DECLARED)
    assert ("models.vit.Block.construct", "cuda", "GPU", "backends.cuda.transformer.block") in rows()


def test_the_page_has_what_the_command_prints(capsys):
    from parity.backends import main

    main()
    assert (ROOT / "docs/evidence/backends.txt").read_text(encoding="utf-8").partition("\n\n")[2] == (
        capsys.readouterr().out
    )
    assert sys.modules["ms_vireid.backends.cuda.replacements"].TABLE
