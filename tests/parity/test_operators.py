"""docs/operators.md says what the models compile to now, and what the installed MindSpore has for it on Ascend."""

import pytest

from ms_vireid.errors import InputError
from parity import operators


@pytest.fixture(scope="module")
def classes():
    return operators.ascend_classes()


@pytest.fixture
def page(tmp_path, monkeypatch):
    path = tmp_path / "operators.md"
    monkeypatch.setattr(operators, "PAGE", path)
    return path


def test_the_page_is_what_the_graphs_and_the_plugin_give(capsys):
    assert operators.report(operators.collect(), write=False) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Add", "aclnn"),
        ("SumExt", "aclnn"),
        ("MatMul", "aclnn"),
        ("BroadcastTo", "aclnn"),
        ("ZerosLikeExt", "aclnn"),
        ("BatchMatMul", "aclnn"),  # of another name
        ("Conv2D", "CANN"),
        ("SGD", "CANN"),
        ("Stack", "CANN"),  # of another name
        ("MaxPool3DWithArgmax", "AI CPU"),
        ("AdamWeightDecay", "pass"),
        ("FlashAttentionScore", "aclnn"),  # only on Ascend
        ("BatchNormFold", "missing"),  # only on GPU
        ("NoSuchOperator", "missing"),
    ],
)
def test_the_plugin_tells_what_it_has_from_what_it_has_not(classes, name, expected):
    assert operators.kind_of(name, classes) == expected


def test_a_missing_operator_is_named(page, capsys):
    assert operators.report({"Add": {"X"}, "NoSuchOperator": {"X"}}, write=True) == 1
    assert "2 operators, missing on Ascend: NoSuchOperator\n" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").endswith("| Add | X | aclnn |\n| NoSuchOperator | X | missing |\n")


def test_a_page_that_says_something_else_is_reported(page, capsys):
    assert operators.report({"Add": {"X"}}, write=True) == 0
    assert operators.report({"Add": {"X", "Y"}}, write=False) == 1
    assert f"missing on Ascend: none\n{page} is not up to date" in capsys.readouterr().out


def test_a_mindspore_without_the_plugin_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(operators, "PLUGINS", tmp_path)
    with pytest.raises(InputError, match="Ascend only in its wheels for Linux"):
        operators.ascend_classes()


def test_operators_are_told_from_the_rest_of_a_graph():
    graph = """
subgraph @step_12() {
  %0(CNode_1) = PrimFunc_BatchMatMul(%para1_x, %para2_y, Bool(0), Bool(1))
      : (<Tensor[Float32], (2, 3)>) -> (<Tensor[Float32], (2, 2)>)
  %1([CNode_2]) = Conv2D(%0, %para3_w) {instance name: conv2d} primitive_attrs: {group: I64(1)}
  %2(CNode_3) = call @block_7(%1)
  # In file x.py:1/  y = Erf(x)/
  Return(%2)
}
"""
    assert operators.NODE.findall(graph) == ["BatchMatMul", "Conv2D"]
