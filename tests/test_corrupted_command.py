"""`evaluate.py --corrupted` and its contact sheet, on a tiny model that was not trained."""

import json

import pytest
from PIL import Image

from ms_vireid import evaluate
from ms_vireid.config import CONFIG_ROOT, dump_config, load_config
from ms_vireid.engine.checkpoint import save_checkpoint
from ms_vireid.models import build_model

from .test_train import TINY, command


@pytest.fixture
def checkpoint(tmp_path):
    config = load_config(CONFIG_ROOT / "demo.yaml", [*TINY.split(), "model.num_classes=7"])
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, build_model(config).get_parameters(), {"config": dump_config(config)})
    return path


def test_the_corrupted_set_is_evaluated_ten_times(checkpoint, monkeypatch, tmp_path, capfd):
    results = []
    given = ("--checkpoint", checkpoint, "--data-root", "data", "--trials", 2, "--json", "result.json")
    for options in ((), ("--corrupted",), ("--corrupted",)):
        command(monkeypatch, tmp_path, evaluate, *given, *options)
        results.append(json.loads((tmp_path / "result.json").read_text()))
    clean, corrupted, again = results
    assert (len(clean["trials"]), len(corrupted["trials"])) == (2, 10)  # as asked for, and as published
    assert corrupted == again
    assert corrupted["trials"] != 5 * clean["trials"]
    printed = capfd.readouterr().out
    assert "sysu_mm01, visible pictures corrupted, 10 trials" in printed
    assert again["checksum"] in printed


def test_the_sheet_is_drawn_of_a_picture_at_the_models_size(checkpoint, monkeypatch, tmp_path):
    given = ("--checkpoint", checkpoint, "--data-root", "data", "--corruption-sheet", "sheet.png")
    command(monkeypatch, tmp_path, evaluate, *given)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (sheet.format, sheet.height) == ("PNG", 12 + 5 * (32 + 4))


def test_a_sheet_in_a_folder_that_is_not_there_is_refused(monkeypatch, tmp_path, capfd):
    with pytest.raises(SystemExit) as stopped:
        command(
            monkeypatch, tmp_path, evaluate, "--checkpoint", "model.safetensors", "--corruption-sheet", "nowhere/a.png"
        )
    assert stopped.value.code == 2
    assert capfd.readouterr().err.startswith("error: --corruption-sheet nowhere/a.png: its folder does not exist")
