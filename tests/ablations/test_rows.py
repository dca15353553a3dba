"""Every row of every table takes a training step in each of its stages, two at least, and is evaluated."""

import json

import pytest

from ms_vireid import ablate
from ms_vireid.ablations import runs, tables
from ms_vireid.ablations.tables import Demo, list_tables, load_table
from ms_vireid.command.running import run
from tests.ablations.in_process import TINY, start


@pytest.mark.parametrize("name", list_tables())
def test_every_row_trains_and_is_evaluated(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "start", start)
    monkeypatch.setattr(tables, "load_demo", lambda model: Demo(epochs=2, overrides=tuple(TINY[model])))
    monkeypatch.setattr("sys.argv", ["ablate.py", name, "--demo", "--device", "CPU", "--output", "out"])
    run(ablate.main)

    written = json.loads((tmp_path / f"out/{name}/table.json").read_text())
    table = load_table(name)
    assert [row["name"] for row in written["rows"]] == [row.name for row in table.rows]
    for row, described in zip(table.rows, written["rows"], strict=True):
        assert described["status"] == ("complete" if row.config else "published only"), row.name
        for number in described["numbers"] if row.config else []:
            assert 0 <= number["mean"] <= 100
        for made in described["runs"]:
            logged = (tmp_path / made["folder"] / "metrics.jsonl").read_text().splitlines()
            assert json.loads(logged[-1])["step"] == 2
