"""ablate.py on tiny models: what runs, what does not run again, what is left when a row fails or is stopped."""

import gc
import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest

from ms_vireid import ablate
from ms_vireid.ablations import runs, tables
from ms_vireid.ablations.output import row_result
from ms_vireid.ablations.runs import TablePlan
from ms_vireid.ablations.tables import Demo, load_table
from ms_vireid.command.running import run
from ms_vireid.config import load_config
from ms_vireid.engine.run_folder import Result, RunFolder, StoredEvaluation
from ms_vireid.files.checks import file_checksum, read_json
from ms_vireid.files.writing import write_json
from tests.ablations import in_process
from tests.ablations.in_process import OPERATORS, TINY
from tests.data.tree import write_regdb, write_sysu_mm01
from tests.test_train import refusal

TINY_MUN = [*TINY["mun"][1:], OPERATORS, "data.image_size=[24, 24]", "data.workers=0", "stages.0.epochs=1"]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Runs commands in this process; a list of their names and arguments."""
    calls = []

    def start(command, arguments, log):
        calls.append((command, arguments))
        return in_process.start(command, arguments, log)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "start", start)
    monkeypatch.setattr(tables, "load_demo", lambda model: Demo(epochs=2, overrides=(*TINY[model], OPERATORS)))
    return calls


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["ablate.py", *map(str, arguments)])
    run(ablate.main)


def demo(monkeypatch, table, *arguments):
    command(monkeypatch, table, "--demo", "--device", "CPU", "--output", "out", *arguments)
    return written(table)


def written(table):
    rows = json.loads(Path(f"out/{table}/table.json").read_text())["rows"]
    return {row["name"]: row for row in rows}


def rows_of(calls, table):
    """The rows whose training was started."""
    folders = [arguments[arguments.index("--output") + 1] for started, arguments in calls if started == "train"]
    return [folder.split(f"{table}/")[1].split("/")[0] for folder in folders]


def test_the_list_shows_every_row_with_its_published_numbers(monkeypatch, capfd):
    command(monkeypatch, "--list")
    shown = capfd.readouterr().out
    for name in tables.list_tables():
        assert f"{name}: {load_table(name).source}: " in shown
        for row in load_table(name).rows:
            (line, *_) = (line for line in shown.splitlines() if line.startswith(f"{row.name} "))
    (line,) = (line for line in shown.splitlines() if line.startswith("dcl-hard "))
    assert line.split() == ["dcl-hard", "+DCL", "(Hard)", "63.22", "94.09", "62.13", "49.97"]
    (line,) = (line for line in shown.splitlines() if line.startswith("lambda1-0.1 "))
    assert line.split()[-2:] == ["-", "-"]


def test_the_list_of_one_table_gives_recipes_that_load(monkeypatch, capfd):
    command(monkeypatch, "pmt-table-2", "--list")
    recipes = [line.split("--config ")[1] for line in capfd.readouterr().out.splitlines() if "--config" in line]
    assert len(recipes) == 4
    for path, *overrides in map(shlex.split, recipes):
        assert load_config(path, overrides).data.name == "sysu_mm01"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pmt-table-9"], "error: no table 'pmt-table-9'; choose one of mun-choices, mun-table-1, "),
        ([], "error: name a table, or give --list"),
        (["pmt-table-1", "--rows", "rgb", "red"], "--rows red: the table has no row of that name to run; it has rgb"),
        (["pmt-table-1", "--rows", "model.width=8"], "error: --rows model.width=8: names no row; name some, or leave"),
        (["mun-table-4", "--rows", "cmt"], "error: --rows cmt: the table has no row of that name to run; it has agw"),
        (["pmt-table-1"], "error: no folder is given for sysu_mm01: --data-root FOLDER (get SYSU-MM01"),
        (["mun-table-1"], "error: no folder is given for sysu_mm01: --data-root sysu_mm01=FOLDER ("),
        (["mun-table-1", "--data-root", "x"], "--data-root x: say for which of sysu_mm01, regdb: --data-root sys"),
        (["pmt-table-4", "--pretrained", "x"], "error: --pretrained x: say for which of agw, pmt: --pretrained agw=x"),
        (["pmt-table-1", "--data-root", "nowhere"], "error: nowhere: no such folder"),
        (["pmt-table-1", "--trials", "3"], "error: --trials: only RegDB has splits, but pmt-table-1 uses sysu_mm01"),
        (["pmt-table-1", "--demo", "sed=1"], "gray-rgb.yaml: unknown key 'sed'"),
        (["pmt-table-1", "--demo", "--pretrained", "gone.pth", *TINY["pmt"]], "gone.pth: no such weight file"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capfd, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert says in refusal(capfd, command, monkeypatch, *arguments)


def test_a_table_on_two_data_sets_is_run_on_both_and_on_every_split(started, monkeypatch, tmp_path, capfd):
    sysu = write_sysu_mm01(tmp_path / "sysu")
    for trial in (1, 2):
        write_regdb(tmp_path / "regdb", trial)
    roots = ["--data-root", f"sysu_mm01={sysu}", "--data-root", f"regdb={tmp_path / 'regdb'}"]
    arguments = ["mun-table-2", "--rows", "x", *TINY_MUN, *roots, "--trials", "2", "--device", "CPU", "--output", "out"]
    command(monkeypatch, *arguments)
    folders = ["sysu_mm01/seed0", "regdb/trial1/seed0", "regdb/trial2/seed0"]
    row = written("mun-table-2")["x"]
    assert [made["folder"] for made in row["runs"]] == [f"out/mun-table-2/x/{folder}" for folder in folders]
    ours = [json.loads((tmp_path / made["folder"] / "result.json").read_text())["trained"] for made in row["runs"]]
    clean, regdb = ours[0], ours[1:]
    rank1, mean_ap = row["numbers"][0], row["numbers"][3]
    assert rank1["mean"] == pytest.approx(100 * clean["rank1"])
    assert rank1["difference"] == pytest.approx(100 * clean["rank1"] - 66.17)
    assert mean_ap["mean"] == pytest.approx(50 * (regdb[0]["map"] + regdb[1]["map"]))
    assert mean_ap["std"] == pytest.approx(50 * abs(regdb[0]["map"] - regdb[1]["map"]))
    assert written("mun-table-2")["mixed"]["status"] == "not run"
    assert "mean ± standard deviation over 1 seed and RegDB's splits 1 to 2" in capfd.readouterr().out

    started.clear()
    command(monkeypatch, *arguments)
    assert started == []


def test_a_set_without_a_folder_is_left_out(started, monkeypatch, tmp_path, capfd):
    write_regdb(tmp_path / "regdb")
    arguments = ["--data-root", "regdb=regdb", "--device", "CPU", "--output", "out"]
    command(monkeypatch, "mun-table-2", "--rows", "x", *TINY_MUN, *arguments)
    assert "note: without sysu_mm01, whose folder is not given (--data-root sysu_mm01=FOLDER)" in capfd.readouterr().out
    assert [number["columns"] for number in written("mun-table-2")["x"]["numbers"]] == ["RegDB, V to I"] * 2


def test_a_model_is_searched_in_both_modes_after_one_training(started, monkeypatch, capfd):
    row = demo(monkeypatch, "pmt-table-5", "--rows", "pmt")["pmt"]
    assert [(made, "--mode" in arguments) for made, arguments in started] == [("train", False), ("evaluate", True)]
    assert [number["columns"] for number in row["numbers"]] == ["synthetic set"] * 5 + ["synthetic set, indoor"] * 5
    assert (row["status"], all(number["published"] is None for number in row["numbers"])) == ("complete", True)
    run = RunFolder(row["runs"][0]["folder"])
    (further,) = run.path.glob("result-*.json")
    found = read_json(further, StoredEvaluation)
    assert found.sha256 == read_json(run.result, Result).protocol.sha256 == file_checksum(run.model)
    write_json(further, found.model_dump() | {"sha256": "0" * 64})
    error = refusal(
        capfd, command, monkeypatch, "pmt-table-5", "--demo", "--rows", "pmt", "--device", "CPU", "--output", "out"
    )
    assert error.startswith(f"error: {further}: is not of the model in result.json; remove it and rerun the command")
    further.unlink()
    shutil.copy(run.last, run.model)
    with pytest.raises(SystemExit):
        demo(monkeypatch, "pmt-table-5", "--rows", "pmt")
    assert f"failed: {run.model}: its SHA-256 is not that of the model in result.json" in capfd.readouterr().out


def test_a_complete_row_is_not_run_again_and_its_numbers_stay(started, monkeypatch):
    demo(monkeypatch, "pmt-table-1", "--rows", "rgb")
    rows = demo(monkeypatch, "pmt-table-1", "--rows", "gray")
    assert rows_of(started, "pmt-table-1") == ["rgb", "gray"]
    assert [rows[name]["status"] for name in ("rgb", "gray", "gray-rgb")] == ["complete", "complete", "not run"]
    started.clear()
    demo(monkeypatch, "pmt-table-1", "--rows", "rgb", "gray", "data.workers=0", "train.log_steps=2")
    assert started == []


def test_a_folder_with_another_recipe_is_refused_in_one_line(started, monkeypatch, capfd):
    demo(monkeypatch, "pmt-table-1", "--rows", "rgb")
    arguments = ["pmt-table-1", "--demo", "--device", "CPU", "--output", "out", "optimizer.lr=0.01"]
    error = refusal(capfd, command, monkeypatch, *arguments, "--rows", "rgb")
    assert error.startswith("error: out/pmt-table-1/rgb/seed0: holds a run with another 1 (optimizer.lr); repeat its")
    command(monkeypatch, *arguments, "--rows", "gray")
    assert "Baseline (RGB): out/pmt-table-1/rgb/seed0 holds a run with another 1 (opt" in capfd.readouterr().out
    assert written("pmt-table-1")["rgb"]["status"] == "not run"
    record = Path("out/pmt-table-1/rgb/seed0/run.json")
    record.write_text(record.read_text().replace("command", "commands", 1))
    error = refusal(capfd, command, monkeypatch, *arguments, "--rows", "rgb")
    assert error.startswith("error: out/pmt-table-1/rgb/seed0/run.json: is not what train.py writes (its checksum")
    command(monkeypatch, *arguments, "--rows", "gray")
    assert "Baseline (RGB): out/pmt-table-1/rgb/seed0/run.json: is not what train.py writes" in capfd.readouterr().out


def test_seeds_give_a_mean_and_a_deviation(started, monkeypatch, capfd):
    row = demo(monkeypatch, "pmt-table-1", "--rows", "rgb", "--seeds", "2", "seed=5")["rgb"]
    assert [made["folder"] for made in row["runs"]] == [f"out/pmt-table-1/rgb/seed{seed}" for seed in (5, 6)]
    ours = [json.loads(Path(made["folder"], "result.json").read_text())["trained"]["map"] for made in row["runs"]]
    assert row["numbers"][2]["mean"] == pytest.approx(50 * sum(ours))
    assert row["numbers"][2]["std"] == pytest.approx(50 * abs(ours[0] - ours[1]))
    assert "mean ± standard deviation over 2 seeds" in capfd.readouterr().out


def test_a_failing_row_does_not_lose_the_others(started, monkeypatch, capfd):
    working = runs.start

    def start(command, arguments, log):
        wrong = ["optimizer.lr=1e4", "optimizer.weight_decay=1e4", "train.iterations=8"] if "/gray/" in str(log) else []
        return working(command, [*arguments, *wrong], log)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "start", start)
        with pytest.raises(SystemExit) as stopped:
            demo(patch, "pmt-table-1", "--rows", "rgb", "gray", "rgb-gray")
    assert stopped.value.code == 1
    shown = capfd.readouterr().out
    rows = written("pmt-table-1")
    assert [rows[name]["status"] for name in ("rgb", "gray", "rgb-gray")] == ["complete", "failed", "complete"]
    assert "loss=nan" in rows["gray"]["failure"] or "not finite" in rows["gray"]["failure"]
    assert "loss=nan" in Path("out/pmt-table-1/gray/seed0/log.txt").read_text()
    ours, published = (line.split()[2:] for line in shown.splitlines() if line.startswith("Baseline (Gray)  "))
    assert (ours, published) == (["failed"] * 4, ["56.51", "91.76", "54.22", "39.75"])


def test_a_stopped_table_goes_on_where_it_was(started, monkeypatch, capfd):
    from ms_vireid.engine.log import TrainingLog

    log = TrainingLog.write

    def interrupted(self, step, planned):
        log(self, step, planned)
        if "gray" in str(self.run.path) and step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    arguments = ["pmt-table-1", "--rows", "rgb", "gray", "--demo", "--device", "CPU", "--output", "out"]
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "write", interrupted)
        error = refusal(capfd, command, patch, *arguments, code=130)
    assert error == "stopped; run it again to continue; the table so far is out/pmt-table-1/table.md"
    rows = written("pmt-table-1")
    assert [rows[name]["status"] for name in ("rgb", "gray")] == ["complete", "not run"]
    assert rows["gray"]["runs"][0]["status"] == "begun"

    gc.collect()  # the lock of the run that was stopped, which a process of its own would have taken with it
    started.clear()
    command(monkeypatch, *arguments)
    assert rows_of(started, "pmt-table-1") == ["gray"]
    assert "resuming from out/pmt-table-1/gray/seed0/last.safetensors at step 1 of 2" in capfd.readouterr().out
    logged = Path("out/pmt-table-1/gray/seed0/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in logged] == [1, 2]
    assert written("pmt-table-1")["gray"]["status"] == "complete"


def test_an_output_folder_that_cannot_be_written_is_refused_before_training(started, monkeypatch, capfd):
    Path("out").write_text("a file")
    error = refusal(capfd, command, monkeypatch, "pmt-table-1", "--demo", "--output", "out")
    assert error.startswith("error: out/pmt-table-1: cannot be created (Not a directory")
    assert started == []


def test_imagenet_weights_are_given_by_model(started):
    plan = TablePlan(
        "pmt-table-4", load_table("pmt-table-4"), Path("out"), demo=True, weights={"agw": "a b.safetensors"}
    )
    weights = {one.row.name: one.config.model.pretrained for one in plan.trainings(list(plan.table.rows))}
    assert weights == {name: "a b.safetensors" for name in weights if name != "ours"} | {"ours": "none"}


def test_splits_are_the_outermost_loop(started, tmp_path):
    for trial in (1, 2):
        write_regdb(tmp_path / "regdb", trial)
    table = load_table("pmt-table-6")
    roots = {"regdb": str(tmp_path / "regdb")}
    plan = TablePlan("pmt-table-6", table, tmp_path / "out", roots=roots, seeds=2, trials=2)
    made = [(one.config.data.trial, one.config.seed, one.row.name) for one in plan.trainings(table.rows)]
    assert made == [(trial, seed, row) for trial in (1, 2) for seed in (0, 1) for row in ("agw", "pmt")]


@pytest.mark.parametrize(
    ("options", "marks"),
    [
        ({}, ("from scratch", "one split of RegDB")),
        ({"trials": 2}, ("from scratch",)),
        ({"weights": {"agw": "a.safetensors"}}, ("one split of RegDB",)),
        ({"weights": {"agw": "a.safetensors"}, "trials": 2}, ()),
    ],
)
def test_what_is_less_than_the_papers_is_marked(started, tmp_path, options, marks):
    for trial in (1, 2):
        write_regdb(tmp_path / "regdb", trial)
    table = load_table("pmt-table-6")
    plan = TablePlan("pmt-table-6", table, tmp_path / "out", roots={"regdb": str(tmp_path / "regdb")}, **options)
    row = next(row for row in table.rows if row.name == "agw")
    trainings = plan.trainings([row])
    assert row_result(plan.columns, row, trainings, None).marks == marks
    assert ("model.pretrained=none" in trainings[0].arguments) == ("from scratch" in marks)
