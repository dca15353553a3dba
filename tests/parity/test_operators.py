"""docs/operators.md says what the models compile to now, and what the installed MindSpore registers for each device."""

import pytest

from parity import operators
from parity.registries import LEAST, check_whole, registries


@pytest.fixture(scope="module")
def found():
    return {device: registries(device) for device in operators.DEVICES}


def test_the_page_is_what_the_graphs_and_the_registries_give(found):
    rows = operators.table(operators.collect(), found)
    assert [row for row in rows if "missing" in row] == []
    assert operators.PAGE.read_text(encoding="utf-8") == operators.page(rows), "run python parity/operators.py --write"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Add", ("kernel", "kernel", "aclnn, CANN, AiCPU")),
        ("Conv2D", ("kernel", "kernel", "CANN")),
        ("SGD", ("kernel", "class", "CANN")),
        ("AdamWeightDecay", ("kernel", "kernel", "pass")),
        ("Stack", ("kernel", "class", "CANN, AiCPU")),
        ("Conv2DTranspose", ("pass", "pass", "CANN")),
        ("SumExt", ("rewritten", "rewritten", "aclnn")),
        ("GridSampler2D", ("kernel", "kernel", "aclnn, CANN, AiCPU")),
        ("FlashAttentionScore", ("missing", "missing", "aclnn, CANN")),  # only on Ascend
        ("BatchNormFold", ("missing", "class", "missing")),  # only on GPU
        ("NoSuchOperator", ("missing", "missing", "missing")),
    ],
)
def test_the_registries_tell_what_a_device_has_from_what_it_has_not(found, name, expected):
    assert operators.table({name: {"X"}}, found) == [(name, "X", *expected)]


def test_a_registry_that_is_not_whole_is_an_error(found):
    for device, registry in found.items():
        check_whole(device, registry)
        for kind, names in registry.items():
            with pytest.raises(RuntimeError, match=f"{device}, {kind}: {LEAST[kind] - 1} operators, fewer than"):
                check_whole(device, registry | {kind: set(sorted(names)[: LEAST[kind] - 1])})
    with pytest.raises(RuntimeError, match="the registries of Toaster cannot be read"):
        registries("Toaster")


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
