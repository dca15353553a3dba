"""The main job on the device of `pytest --device`."""

import json

import pytest

from ms_vireid import train
from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT
from tests.tiny_models import DATA, RECIPES

COMMON = ["train.num_identities=2", "train.num_instances=2", "train.iterations=2", "train.log_steps=1"]
SHORT = {"pmt": ["stages.0.epochs=1", "stages.1.epochs=1"], "agw": ["stages.0.epochs=1"], "mun": ["stages.0.epochs=1"]}


@pytest.mark.parametrize("family", SHORT)
def test_each_method_trains_and_is_evaluated(family, tmp_path, monkeypatch, request):
    recipe, sizes = RECIPES[family]
    device = request.config.getoption("--device")
    where = ["--config", str(CONFIG_ROOT / recipe), "--device", device, "--output", str(tmp_path / "run")]
    settings = [DATA % (tmp_path / "data"), *sizes, *COMMON, *SHORT[family], "evaluation.trials=2"]
    monkeypatch.setattr("sys.argv", ["train.py", *where, *settings])
    run(train.main)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 < result["trained"]["map"] <= 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["device"].startswith(device)
