"""What a replacement stands for is read from the code, and an edit of any kind is seen."""

import functools
import importlib.util
import sys

import mindspore as ms
import pytest
from mindspore import Tensor, nn, ops

from ms_vireid.backends import proven
from ms_vireid.backends.reading import NO_SOURCE, code_of_function, code_of_method, digest_of
from ms_vireid.models import create_model, layers, vit
from parity.backends import record, samples
from tests.edits import runs, sites

WRITTEN = """
def f(self, x, scale=2.0):
    y = self.inner(x) * scale  # twice
    return y - 1
"""


def module(tmp_path, text, name="edited"):
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize(
    "same",
    [
        WRITTEN.replace("  # twice", ""),
        WRITTEN.replace("):", '):\n    """Computes."""', 1),
        WRITTEN.replace("x,", "x: 'Tensor',").replace("2.0)", "2.0) -> 'Tensor'"),
        f"import functools\n\n\n@functools.lru_cache{WRITTEN}".replace("\n\ndef", "\ndef"),
    ],
)
def test_comments_docstrings_annotations_and_decorators_do_not_count(tmp_path, same):
    one = module(tmp_path, WRITTEN, "one").f
    other = module(tmp_path, same, "other").f
    assert digest_of(one) == digest_of(getattr(other, "__wrapped__", other)) != NO_SOURCE


@pytest.mark.parametrize(
    ("text", "instead"), [("- 1", "+ 1"), ("2.0", "2.5"), ("self.inner", "self.outer"), ("* scale", "* scale * scale")]
)
def test_what_runs_counts(tmp_path, text, instead):
    assert digest_of(module(tmp_path, WRITTEN, "one").f) != digest_of(
        module(tmp_path, WRITTEN.replace(text, instead), "other").f
    )


def test_a_file_that_has_changed_since_it_was_imported_is_no_source(tmp_path):
    function = module(tmp_path, WRITTEN).f
    (tmp_path / "edited.py").write_text(WRITTEN.replace("- 1", "+ 1"))
    assert digest_of(function) == NO_SOURCE


def wrapped(function):
    @functools.wraps(function)
    def call(*arguments):
        return function(*arguments)

    return call


def test_a_wrapper_is_not_what_it_wraps():
    assert digest_of(wrapped(vit.Mlp.construct)) != digest_of(vit.Mlp.construct)


def test_neither_a_lambda_nor_what_has_no_file_has_a_source():
    namespace = {}
    exec("def f(x):\n    return x", namespace)
    assert [digest_of(namespace["f"]), digest_of(lambda x: x), digest_of(functools.partial(ops.relu))] == [
        NO_SOURCE
    ] * 3


@pytest.fixture
def block():
    return vit.Block(16, 2, 4, 0.1, 0.1, 0)


def test_a_block_stands_for_all_that_is_in_it(block):
    code = code_of_method(block, "construct")
    assert {"models.vit.Mlp.construct", "models.layers.Dropout.numbers", "models.noise._MULTIPLIER"} <= set(
        code.functions
    )
    assert code.parts["mlp.act"] == {"mindspore.nn.layer.activation.GELU"}


def rows_of(block):
    return {"models.vit.Block.construct": proven.recorded([code_of_method(block, "construct")])}


def reason(block, rows):
    return proven.difference(rows, vit.Block.construct, code_of_method(block, "construct"))


def test_edits_are_named(block, monkeypatch):
    rows = rows_of(block)
    assert reason(block, rows) is None
    block.mlp.act.register_forward_hook(lambda *_: None)
    assert reason(block, rows) == "its mlp.act has a hook"
    block.mlp.act = nn.ReLU()
    assert reason(block, rows) == "its mlp.act is a nn.ReLU"
    block.mlp.act = nn.GELU(approximate=False)
    block.mlp.act.to_float(ms.float16)
    assert reason(block, rows) == "its mlp.act is a nn.GELU as fp16"
    block.mlp.act = nn.GELU(approximate=False)
    block.mlp.fc1.construct = lambda x: x
    assert "of one cell" in reason(block, rows)
    block.mlp.fc1 = vit.dense(16, 64)
    monkeypatch.setattr(vit.Mlp, "construct", wrapped(vit.Mlp.construct))
    assert reason(block, rows) == "Mlp.construct (ms_vireid/models/vit.py) has changed"


def test_a_constant_and_a_function_of_a_module_are_seen(block, monkeypatch):
    rows = rows_of(block)
    monkeypatch.setattr("ms_vireid.models.noise._PART", 100)
    assert reason(block, rows) == "_PART (ms_vireid/models/noise.py) has changed"
    monkeypatch.undo()
    monkeypatch.setattr(layers, "_part_numbers", lambda parts: Tensor([1]))
    assert reason(block, rows) is not None


def test_a_part_in_another_order_is_seen():
    cell = nn.SequentialCell([nn.ReLU(), nn.Tanh()])
    code = code_of_method(cell, "construct")
    other = code_of_method(nn.SequentialCell([nn.Tanh(), nn.ReLU()]), "construct")
    assert code.parts[""] != other.parts[""]


def test_the_record_is_what_is_read():
    """On whichever Python this runs: `python parity/report.py --renew` renews it."""
    assert record() == proven.record()


@pytest.mark.parametrize("run", ["PMT", "AGW", "MUN each"])
def test_all_that_runs_is_read(run, monkeypatch):
    """What eager runs of this project in a training step and its features."""
    names = {function.__code__: f"{module}.{name}" for module, name, function in sites.functions()}
    called = set()

    def note(frame, event, _argument):
        if event == "call" and frame.f_code in names:
            called.add(names[frame.f_code])

    def watched(*arguments):
        sys.setprofile(note)
        try:
            return trained(*arguments)
        finally:
            sys.setprofile(None)

    trained = runs._trained
    monkeypatch.setattr(runs, "_trained", watched)
    assert "losses" in runs.outcome(run, "eager")
    assert len(called) > 30
    assert called - runs.reached(run) == set()


def test_samples_have_a_cell_for_every_row():
    assert all(row["functions"] for devices in record().values() for rows in devices.values() for row in rows.values())
    assert sum(1 for _ in samples()) > 10


class TwiceGeM(layers.GeM):
    def construct(self, x):
        return 2.0 * layers.GeM.construct(self, x)


def test_a_method_called_by_its_class_is_read_as_the_cells_own():
    read = code_of_method(TwiceGeM(2.0, learned=True), "construct")
    assert {"models.layers.GeM.construct", "models.layers.GeM.trained_power"} <= read.functions.keys()


def test_a_function_is_read_with_what_it_calls():
    from ms_vireid.losses import distance

    assert "losses.distance.masked_min" in code_of_function(distance.hinge).functions
    assert create_model is not None
