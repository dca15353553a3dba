"""What a compiled training step consists of."""

import re
from collections import Counter

import mindspore as ms
import numpy as np
import pytest

from ms_vireid.backends.choosing import backend_named
from ms_vireid.engine.train_step import build_step, loss_scaler
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import build_model
from ms_vireid.optimizers.build import build_optimizer
from tests.tiny_models import tiny_config

NODE = re.compile(r"^ +%\d+\([^)]*\) = (?:PrimFunc_)?([A-Z]\w*)\(", re.MULTILINE)  # of a graph, as MindSpore prints it

SMALLER = {"pmt": ["model.depth=1"], "mun": ["model.ratios=[2]"]}


@pytest.fixture
def operators_of(tmp_path, monkeypatch):
    """How often each operator stands in the graphs that a function compiles, once these are differentiated and
    optimised."""
    monkeypatch.setenv("MS_DEV_DUMP_IR_PASSES", "validate")  # the others take longer to write than to make

    def operators(function):
        ms.set_context(save_graphs=1, save_graphs_path=str(tmp_path))
        try:
            function()
        finally:
            ms.set_context(save_graphs=0)
        texts = [path.read_text() for path in tmp_path.rglob("*_validate_*.ir")]
        assert texts
        return sum((Counter(NODE.findall(text)) for text in texts), Counter())

    return operators


def branching(x):
    total = x.sum()
    if total >= 0:
        total = total + 1
    return total


def test_a_branch_on_data_is_a_switch(operators_of):
    assert operators_of(lambda: ms.jit(branching)(ms.Tensor([1.0])))["Switch"] == 1


@pytest.mark.parametrize(("family", "stage"), [("pmt", 1), ("mun", 0)])
def test_no_step_branches_on_data(family, stage, operators_of, tmp_path):
    """An Ascend refuses such a graph kernel by kernel ("ConditionSwitch ... by kbk"), and a GPU waits for the data."""
    config = tiny_config(family, tmp_path / "data", *SMALLER[family])
    model = build_model(config).set_train()
    optimizer = build_optimizer(model, config)
    loss = StageLoss(config.stages[stage].losses, config.train.num_instances)
    step = build_step(model, loss, optimizer, backend_named("graph", "float16"), scaler=loss_scaler("float16"))
    images = np.zeros((8, 3, 48, 24), np.float32)
    labels = np.array([0, 0, 1, 1] * 2, np.int32)
    scalars = optimizer.scalars(1, [1e-3] * len(optimizer.groups))
    used = operators_of(lambda: step(images, labels, 7, 0.0, scalars))
    assert used["AdamWeightDecay"] > 0
    assert used["Switch"] == 0
