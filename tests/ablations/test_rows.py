"""Every row of every table takes a training step in each of its stages, two at least, logs its terms, and is evaluated.
Of a figure's curve, whose rows differ in one number, the two ends do."""

import json

import pytest

from ms_vireid import ablate
from ms_vireid.ablations import runs, tables
from ms_vireid.ablations.tables import Demo, list_tables, load_table
from ms_vireid.command.running import run
from ms_vireid.config import load_config
from ms_vireid.files.checks import unsealed
from tests.ablations.in_process import OPERATORS, TINY, start


def ends(rows):
    """The first and the last of each curve, whose names begin alike."""
    curves = {}
    for row in rows:
        curves.setdefault(row.name.partition("-")[0], []).append(row)
    return [row for curve in curves.values() for row in (curve[0], curve[-1])]


@pytest.mark.parametrize("name", list_tables())
def test_every_row_trains_and_is_evaluated(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "start", start)
    # The ladder has the losses and models by every backend.
    monkeypatch.setattr(tables, "load_demo", lambda model: Demo(epochs=2, overrides=(*TINY[model], OPERATORS)))
    table = load_table(name)
    rows = ends(table.rows) if "figure" in name else table.rows
    only = ["--rows", *(row.name for row in rows)] if len(rows) < len(table.rows) else []
    monkeypatch.setattr("sys.argv", ["ablate.py", name, "--demo", "--device", "CPU", "--output", "out", *only])
    run(ablate.main)

    written = json.loads((tmp_path / f"out/{name}/table.json").read_text())
    assert [row["name"] for row in written["rows"]] == [row.name for row in table.rows]
    for row, described in zip(table.rows, written["rows"], strict=True):
        if row not in rows:
            continue
        assert described["status"] == ("complete" if row.config else "published only"), row.name
        for number in described["numbers"] if row.config else []:
            assert 0 <= number["mean"] <= 100
        for made in described["runs"]:
            folder = tmp_path / made["folder"]
            logged = unsealed(json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]))
            assert logged["step"] == 2
            beside = {"epoch", "step", "loss", "images_per_second"}
            terms = {key for key in logged if not key.startswith("lr_")} - beside
            assert terms == load_config(folder / "config.yaml").stages[-1].losses.terms().keys()
