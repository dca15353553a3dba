"""What programs compute otherwise is declared where it is defined, and each model has its own rows."""

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest
from mindspore import Tensor, mint, nn, ops

from ms_vireid.devices import replaceable as declared
from ms_vireid.devices.replaceable import DECLARED, check_tables, replaceable
from ms_vireid.models.layers import GeM
from ms_vireid.programs.eager import Eager
from ms_vireid.programs.graph import TABLES
from ms_vireid.programs.program import Program
from parity.programs import rows

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
    line = r'^Layer\.construct: eager replaces it, which @replaceable\("eager"\) does not say$'
    with pytest.raises(ValueError, match=line):
        check_tables("eager", [*Eager.tables.values(), {Layer.construct: twice}])


def test_what_is_declared_and_in_no_table_is_an_error():
    replaceable("eager")(Layer.construct)
    with pytest.raises(ValueError, match=r"^Layer\.construct: no table of eager has it$"):
        check_tables("eager", Eager.tables.values())


def test_what_is_declared_after_the_tables_were_checked_is_an_error():
    check_tables("eager", Eager.tables.values())
    with pytest.raises(ValueError, match=r"^Layer\.construct: no table of eager has it$"):
        replaceable("eager")(Layer.construct)


@pytest.mark.parametrize("programs", [(), ("kernels",)])
def test_what_no_program_computes_is_an_error(programs):
    with pytest.raises(ValueError, match=r"^Layer\.construct: is computed otherwise by"):
        replaceable(*programs)(Layer.construct)


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


def test_a_program_prepares_any_number_of_models_each_with_its_own_rows():
    class ByWidth(Program):
        """Computes wide models as they say."""

        tables = {"CPU": {Layer.construct: twice}}  # noqa: RUF012

        def table_for(self, model):
            return {} if getattr(model, "wide", False) else super().table_for(model)

    replaceable("eager")(Layer.construct)
    program, x, wide, narrow = ByWidth(), Tensor([1.0]), Layer(), Layer()
    wide.wide = True
    computations = [program.prepare(model) for model in (wide, narrow)]
    assert (float(wide(x)), float(narrow(x))) == (1, 2)
    assert [len(computation.table) for computation in computations] == [0, 1]
    assert program.prepare(wide) is computations[0]
    narrow.wide = True
    ByWidth().prepare(narrow)  # as it is written
    assert float(narrow(x)) == 1


def test_all_that_is_declared_is_listed():
    assert {program for _, program, *_ in rows()} == {"numba", "eager", "graph", "cuda"}
    assert len({name for name, *_ in rows()}) == len(DECLARED)
    assert ("models.vit.Block.construct", "cuda", "GPU", "programs.cuda.transformer.block") in rows()


def test_the_page_has_what_the_command_prints(capsys):
    from parity.programs import main

    main()
    assert (ROOT / "docs/evidence/programs.txt").read_text(encoding="utf-8").partition("\n\n")[2] == (
        capsys.readouterr().out
    )
    assert sys.modules["ms_vireid.programs.cuda.table"].TABLE
