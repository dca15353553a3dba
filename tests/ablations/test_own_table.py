"""One's own table: the worked example runs, and what does not fit is one line."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from ms_vireid.ablations import runs
from ms_vireid.ablations.output import Report, row_result
from ms_vireid.ablations.runs import TablePlan
from ms_vireid.ablations.tables import TABLES, load_table
from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, load_config
from tests.ablations import in_process
from tests.ablations.in_process import OPERATORS, TINY
from tests.data.tree import write_folder, write_regdb

EXAMPLE = str(TABLES / "demonstrations.yaml")
OWN = """
title: Mine
sets: {regdb: [model.pretrained=none]}
columns: [{name: RegDB, data: regdb, metrics: [rank1, map]}]
rows: [{name: agw, config: configs/agw/regdb.yaml}]
"""


def test_the_example_is_the_readmes_demonstrations_over_five_seeds():
    plan = TablePlan(EXAMPLE, load_table(EXAMPLE), Path("out"))
    plan._read = lambda config: SimpleNamespace(train=SimpleNamespace(num_identities=740), checksum="")
    plan._check_search = lambda column, config: None
    trainings = plan.trainings(list(plan.table.rows))
    assert [(one.row.name, one.config.seed) for one in trainings] == [
        (row, seed) for seed in range(1, 6) for row in ("pmt", "mun")
    ]
    for one, file in zip(trainings, ("demo.yaml", "mun/demo.yaml"), strict=False):
        assert one.config == load_config(CONFIG_ROOT / file, ["seed=1"]).with_num_classes(740)
    assert str(trainings[0].folder.path) == "out/demonstrations/pmt/seed1"


def test_the_example_runs_and_is_printed_with_mean_and_deviation(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "start", in_process.start)
    short = [*TINY["pmt"], OPERATORS, "stages.0.epochs=1", "stages.1.epochs=1"]
    plan = TablePlan(EXAMPLE, load_table(EXAMPLE), Path("out"), overrides=short, seeds=2)
    row = plan.table.rows[0]
    trainings = plan.trainings([row])
    assert [one.make("CPU") for one in trainings] == [None, None]
    ours = [json.loads((one.folder.path / "result.json").read_text())["trained"]["map"] for one in trainings]
    result = row_result(plan.columns, row, trainings, None)
    text = Report(plan.name, plan.table, plan.columns, [result], False, plan.notes(trainings)).text().splitlines()
    assert text[0] == "The README's demonstrations, seeds 1 to 5"
    mean, deviation = 50 * sum(ours), 50 * abs(ours[0] - ours[1])
    assert f"{mean:.2f} ± {deviation:.2f}" in text[-1]
    assert not any("paper" in line for line in text)


def test_splits_and_seeds_are_the_tables(tmp_path):
    for trial in (1, 2):
        write_regdb(tmp_path / "regdb", trial)
    file = tmp_path / "mine.yaml"
    file.write_text(OWN + "seeds: 2\nsplits: 2\n")
    table = load_table(str(file))
    plan = TablePlan(str(file), table, tmp_path, roots={"regdb": str(tmp_path / "regdb")})
    made = [str(one.folder.path.relative_to(tmp_path)) for one in plan.trainings(list(table.rows))]
    assert made == [f"mine/agw/trial{trial}/seed{seed}" for trial in (1, 2) for seed in (0, 1)]
    assert table.rows[0].label == "agw"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("data: regdb", "data: llcm", "sets and the columns' data name different data sets (llcm, regdb)"),
        (", config: configs/agw/regdb.yaml", "", "row agw has no config; name its file"),
        ("agw/regdb.yaml}", "agw/regdb.yaml, published: [1.0]}", "row agw has 1 published numbers for 2 metrics"),
        ("rows: [", "rows: [{name: agw, config: configs/agw/regdb.yaml}, ", "rows of the same name (agw)"),
        ("title: Mine", "title: Mine\nsplits: 11", "splits: input should be less than or equal to 10, got 11"),
        ("agw/regdb.yaml}", "agw/regdb.yaml, published: [101.0, 1.0]}", "should be less than or equal to 100"),
        ("[rank1, map]", "[rank2, map]", "metrics.0: "),
        ("name: agw,", "name: ../agw,", "should match pattern"),
        ("title: Mine", "title: [Mine", "not valid YAML"),
        ("title: Mine", "titel: Mine", "title: field required"),
        ("title: Mine", 'title: "two\\nlines"', "title: must be one line of printable text"),
        ("title: Mine", "title: " + "x" * 501, "title: string should have at most 500 characters"),
        ("configs/agw/regdb.yaml", '"a\\0b"', "config: must be one line of printable text"),
        ("configs/agw/regdb.yaml", '""', "config: string should have at least 1 character"),
        ("configs/agw/regdb.yaml", "x" * 4097, "config: string should have at most 4096 characters"),
        ("agw/regdb.yaml}", 'agw/regdb.yaml, configs: {regdb: ""}}', "configs.regdb: string should have at least 1"),
        ("agw/regdb.yaml}", 'agw/regdb.yaml, overrides: ["\\e[2J=1"]}', "overrides.0: must be one line of printable"),
        ("model.pretrained=none", '"a\\0b"', "sets.regdb.0: must be one line of printable text"),
        ("name: agw,", "name: table.md,", "row table.md is named like a file of the table's folder; rename it"),
        ("title: Mine", "title: Mine\nseeds: 101", "seeds: input should be less than or equal to 100, got 101"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path, old, new, says):
    file = tmp_path / "mine.yaml"
    file.write_text(OWN.replace(old, new, 1))
    with pytest.raises(InputError) as refused:
        load_table(str(file))
    assert str(refused.value).startswith(f"{file}:")
    assert says in str(refused.value)


def test_a_row_of_another_data_set_and_a_file_that_is_not_there_are_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(OWN.replace("agw/regdb", "agw/sysu"))
    table = load_table(str(file))
    with pytest.raises(InputError, match=r"row agw is on sysu_mm01, not on regdb as its column; name another file"):
        TablePlan(str(file), table, tmp_path).trainings(list(table.rows))
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        load_table("nowhere.yaml")


SEARCHES = {  # of RegDB, with overrides: what is wrong
    ("renormalise: true",): "column RegDB: configuration: renormalise concerns the features that",
    ("mode: indoor",): "column RegDB: search.mode: has no effect on regdb; leave it out",
    ("shots: 10",): "column RegDB: search.shots: has no effect on regdb; leave it out",
    ("corrupted: true", "evaluation.frost=nowhere"): "nowhere: no such folder; evaluation.frost is a folder of",
    ("renormalise: true", "evaluation.flip=true"): None,
    ("flip: true", "evaluation.frost=nowhere"): None,
}


@pytest.mark.parametrize(("given", "says"), SEARCHES.items())
def test_a_search_that_cannot_be_is_refused_before_training(tmp_path, given, says):
    search, *overrides = given
    write_regdb(tmp_path / "regdb")
    file = tmp_path / "mine.yaml"
    file.write_text(OWN.replace("map]", f"map], search: {{{search}}}"))
    roots = {"regdb": str(tmp_path / "regdb")}
    plan = TablePlan(str(file), load_table(str(file)), tmp_path, overrides=overrides, roots=roots)
    if says is None:
        assert len(plan.trainings(list(plan.table.rows))) == 1
    else:
        with pytest.raises(InputError, match=re.escape(says)):
            plan.trainings(list(plan.table.rows))


ACROSS = OWN.replace("columns: [", "columns: [{name: Folders, data: regdb, metrics: [map], search: {data: folder}}, ")


def test_a_column_is_tested_on_another_set(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "start", in_process.start)
    file = tmp_path / "mine.yaml"
    file.write_text(ACROSS)
    roots = {"regdb": str(write_regdb(tmp_path / "regdb")), "folder": str(write_folder(tmp_path / "people"))}
    tiny = [one for one in TINY["agw"] if not one.startswith(("data=", "evaluation="))]
    short = [*tiny, OPERATORS, "data.image_size=[32,16]", "data.workers=0", "stages.0.epochs=1"]
    plan = TablePlan(str(file), load_table(str(file)), tmp_path, overrides=short, roots=roots)
    (row,) = plan.table.rows
    (training,) = plan.trainings([row])
    assert training.make("CPU") is None
    result = json.loads((training.folder.path / "result-folder.json").read_text())
    assert [result["evaluated"][name] for name in ("trained_on", "data")] == ["regdb", "folder"]
    assert result["num_queries"] == 4 * 2  # of all four people
    folders, regdb = row_result(plan.columns, row, [training], None).metrics
    assert (folders[0]["map"], len(regdb)) == (result["mean"]["map"], 1)


def test_a_set_to_test_on_needs_its_folder_and_fits_its_search(tmp_path):
    file, regdb = tmp_path / "mine.yaml", str(write_regdb(tmp_path / "regdb"))
    file.write_text(ACROSS)
    table = load_table(str(file))
    assert table.roots == ["regdb", "folder"]
    with pytest.raises(InputError, match="no folder is given for folder: --data-root folder=FOLDER"):
        TablePlan(str(file), table, tmp_path, roots={"regdb": regdb}).trainings(list(table.rows))
    file.write_text(ACROSS.replace("{data: folder}", "{data: folder, mode: indoor}"))
    roots = {"regdb": regdb, "folder": str(write_folder(tmp_path / "people"))}
    with pytest.raises(InputError, match=r"column Folders: search\.mode: has no effect on folder; leave it out"):
        TablePlan(str(file), load_table(str(file)), tmp_path, roots=roots).trainings(list(table.rows))


def test_a_direction_that_the_set_does_not_have_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, table = tmp_path / "mine.yaml", OWN.replace("regdb", "synthetic").replace("agw/synthetic", "agw/sysu")
    file.write_text(table.replace("map]", "map], search: {direction: visible-to-infrared}"))
    plan = TablePlan(str(file), load_table(str(file)), tmp_path, overrides=TINY["agw"])
    with pytest.raises(InputError, match=r"evaluation\.direction: SYSU-MM01's protocol has infrared queries only"):
        plan.trainings(list(plan.table.rows))
