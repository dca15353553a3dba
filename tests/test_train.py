"""The main job on a tiny model, in this process: what is printed, what is left, what evaluate.py makes of it."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from mindspore import ops
from PIL import Image

import ms_vireid
from ms_vireid import extract, train
from ms_vireid.backends.backend import Step
from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.engine import log, trainer
from ms_vireid.engine.checkpoint import load_checkpoint
from ms_vireid.engine.log import Jumps, TrainingLog
from ms_vireid.engine.trainer import Trainer
from ms_vireid.evaluation import evaluating
from ms_vireid.files.checks import unsealed
from ms_vireid.models import build_model
from ms_vireid.search.feature_files import load_features
from tests.data.tree import write_folder, write_llcm, write_regdb, write_sysu_mm01

evaluate = import_module("ms_vireid.evaluate")  # the command
PAGE = Path(__file__).parents[1] / "docs/training.md"
TINY = """
data.image_size=[32,16] data.workers=0 data.synthetic.train_identities=6 data.synthetic.val_identities=1
data.synthetic.test_identities=4 data.synthetic.images_per_camera=1 data.synthetic.image_size=[64,32]
model.patch_size=8 model.stride=6 model.embed_dim=16 model.num_heads=2 model.depth=1
train.num_identities=3 train.num_instances=2 train.log_steps=1 evaluation.trials=2
"""
SHORT = "stages.0.epochs=1", "stages.1.epochs=1", "train.iterations=2"
# By operators, which compile nothing.
QUICK = *TINY.split(), *SHORT, "train.backend=eager", "evaluation.compare_untrained=false"
AGW = """
data={name: synthetic, image_size: [32, 16], workers: 0, synthetic: {train_identities: 6, val_identities: 1,
test_identities: 4, images_per_camera: 1, image_size: [64, 32]}}
model.pretrained=none model.layers=[1,1,1,1] model.width=4 model.non_local=[0,1,1,0] augmentation.crop_padding=2
stages.0.epochs=2 schedule.warmup_epochs=1 schedule.milestones=[1]
train.num_identities=3 train.num_instances=2 train.iterations=2 train.log_steps=1 evaluation.trials=2
"""


def command(monkeypatch, folder, module, *arguments):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", [module.__name__, "--device", "CPU", *map(str, arguments)])
    run(module.main)


def refusal(capfd, call, *arguments, code=2, **options):
    """The one line of what is called, which refuses its input."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        call(*arguments, **options)
    error = capfd.readouterr().err.splitlines()
    assert (stopped.value.code, len(error)) == (code, 1), error
    return error[0]


def refused(monkeypatch, folder, capfd, module, *arguments):
    return refusal(capfd, command, monkeypatch, folder, module, *arguments)


def stopped_at(monkeypatch, folder, step, *arguments):
    """Train, and press Ctrl-C after that step."""
    log = TrainingLog.write

    def interrupted(self, done, planned):
        log(self, done, planned)
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "write", interrupted)
        with pytest.raises(SystemExit):
            command(patch, folder, train, *arguments)


def logged(run):
    return [unsealed(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        command(patch, folder, train, *TINY.split(), *SHORT)
    run = folder / "runs" / "pmt-demo"
    (run / "printed.txt").write_text(printed.getvalue())
    return run


def evaluated(monkeypatch, finished, *arguments):
    """What evaluate.py says of the run, from the folder where it was trained."""
    given = "--checkpoint", finished / "model.safetensors", "--json", "again.json", *arguments
    command(monkeypatch, finished.parents[1], evaluate, *given)
    return json.loads((finished.parents[1] / "again.json").read_text())


def test_the_result_holds_trained_untrained_and_chance(finished):
    result = json.loads((finished / "result.json").read_text())
    for row in ("trained", "untrained", "chance"):
        assert set(result[row]) == {"rank1", "rank5", "rank10", "rank20", "map", "minp"}
        assert all(0 <= value <= 1 for value in result[row].values())
    assert result["chance"]["rank1"] == pytest.approx(1 / 4, abs=0.008)  # four identities, alike in the gallery


def test_the_page_of_a_run_is_named_or_opened(finished, tmp_path, monkeypatch):
    assert (finished / "printed.txt").read_text().endswith("its page: python -m ms_vireid.report runs/pmt-demo\n")
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    command(monkeypatch, tmp_path, train, *QUICK, "--open")
    page = tmp_path / "runs/pmt-demo/report.html"
    assert page.stat().st_size > 10_000
    assert opened == [page.as_uri()]


def test_a_checkout_that_was_never_installed_trains_and_extracts(tmp_path, monkeypatch):
    found, here = metadata.distribution, metadata.version("ms_vireid")

    def none_of_its_own(name):
        if name == "ms_vireid":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "distribution", none_of_its_own)
    command(monkeypatch, tmp_path, train, *QUICK)
    run = tmp_path / "runs/pmt-demo"
    assert json.loads((run / "run.json").read_text())["versions"]["ms_vireid"] == here
    images = "--images", write_folder(tmp_path / "pictures"), "--output", "f.npz"
    command(monkeypatch, tmp_path, extract, "--checkpoint", run, *images)
    assert load_features(tmp_path / "f.npz").info["version"] == ms_vireid.__version__ == here


def test_a_page_that_could_not_be_made_is_refused_before_training(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("ms_vireid.command.running.find_spec", lambda package: None if package == "jinja2" else package)
    assert refused(monkeypatch, tmp_path, capfd, train, "--open") == (
        "error: --open needs jinja2: pip install -e '.[viz]'"
    )
    assert not (tmp_path / "runs").exists()


def test_every_term_of_each_stage_is_logged_by_name(finished):
    rows = logged(finished)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"loss", "id", "pht"} <= rows[0].keys()
    assert not {"msel", "dcl"} & rows[0].keys()
    assert {"loss", "id", "pht", "msel", "dcl", "lr_full", "lr_backbone"} <= rows[3].keys()
    row = rows[3]
    total = row["id"] + 0.1 * row["pht"] + 0.5 * row["msel"] + 0.5 * row["dcl"]  # the demo's weights
    assert row["loss"] == pytest.approx(total, rel=1e-6)  # float32 sums


def test_evaluate_gives_the_numbers_that_training_ended_with(finished, monkeypatch):
    trained = json.loads((finished / "result.json").read_text())["trained"]
    assert evaluated(monkeypatch, finished)["mean"] == pytest.approx(trained, abs=1e-12)


def test_evaluate_takes_another_mode_and_number_of_shots(finished, monkeypatch, capfd):
    indoor = evaluated(monkeypatch, finished, "--mode", "indoor", "--shots", "10", "--trials", "3")
    assert len(indoor["trials"]) == 3
    assert indoor["num_gallery"] == 4 * 2  # cameras 1 and 2, one picture each
    chosen = {"mode": "indoor", "shots": 10, "trials": 3}
    plain = dict.fromkeys(("flip", "renormalise", "rerank", "corrupted"), False)
    sets = {"trained_on": "synthetic", "data": "synthetic"}
    assert indoor["evaluated"] == {**sets, "direction": "infrared-to-visible", **chosen, **plain}
    printed = capfd.readouterr().out
    assert "mode indoor, shots 10, trials 3, flip no, renormalise no, rerank no, corrupted no\n" in printed
    assert f"8 pictures in 3 trials; checksum of what was drawn {indoor['checksum']}" in printed
    assert "±" in printed


def test_a_model_is_evaluated_on_another_set(finished, monkeypatch, capfd):
    root = finished.parents[1]
    write_folder(root / "others", ("anna", "ben", "cleo"))
    result = evaluated(monkeypatch, finished, "--data", "folder", "--data-root", "others")
    assert [result["evaluated"][key] for key in ("trained_on", "data")] == ["synthetic", "folder"]
    assert (result["data_root"], result["num_queries"]) == (str(root / "others"), 6)
    assert result["trained_root"] == json.loads((finished / "run.json").read_text())["data"]["root"]
    printed = capfd.readouterr().out
    assert "\ntested on 3 of 3 people\nevaluated: trained on synthetic, data folder, direction" in printed
    from_python = ms_vireid.evaluate(finished, root / "others", data="folder")
    assert (from_python.mean, from_python.evaluated) == (result["mean"], result["evaluated"])
    split = ["regdb", "data.trial=2"]
    write_regdb(root / "regdb", trial=2)
    result = ms_vireid.evaluate(finished, root / "regdb", data=split, direction="visible-to-infrared")
    assert (result.evaluated["split"], result.num_queries) == (2, 4)


OTHER_PEOPLE = "--data", "synthetic", "data.synthetic.seed=1", "data.synthetic.test_identities=4"
FEW = "data.synthetic.train_identities=6", "data.synthetic.images_per_camera=1", "data.synthetic.image_size=[64,32]"


def test_a_threshold_is_given_or_chosen_on_people_who_are_not_tested_on(finished, monkeypatch, capfd):
    plain, given = (evaluated(monkeypatch, finished, *options) for options in ((), ("--threshold", 0.5)))
    measured = {"recall", "precision", "fmr", "dir", "fpir"}
    assert {name: given["mean"][name] for name in plain["mean"]} == plain["mean"]
    assert given["mean"].keys() - plain["mean"] <= measured
    assert given["evaluated"] == plain["evaluated"] | {"threshold": 0.5}
    printed = capfd.readouterr().out
    assert "corrupted no, threshold 0.5\n" in printed
    assert printed.splitlines()[-2].split() == ["[%]", "recall", "precision", "FMR", "DIR", "FPIR"]
    chosen = evaluated(monkeypatch, finished, *OTHER_PEOPLE, *FEW, "--data-root", "seed1", "--fmr", 0.1)
    pairs = 10 * (10 * 9 * 4 + 10 * 9 * 3)  # trials, queries of cameras 6 and 3, others, and their pictures that count
    about = {"fmr": 0.1, "validation_people": 10, "validation_pairs": pairs}
    assert about.items() <= chosen["evaluated"].items()
    assert chosen["evaluated"]["validation_accepted"] <= 0.1 * pairs
    again = ms_vireid.evaluate(
        finished, "seed1", data=[*OTHER_PEOPLE[1:], *FEW], threshold=chosen["evaluated"]["threshold"]
    )
    assert again.mean == chosen["mean"]
    assert (
        ms_vireid.evaluate(finished, "seed1", data=[*OTHER_PEOPLE[1:], *FEW], fmr=0.1).evaluated == chosen["evaluated"]
    )
    corrupted = evaluated(monkeypatch, finished, "--corrupted", "--threshold", 0.5)
    assert [trial.keys() & {"recall", "fmr"} for trial in corrupted["trials"]] == 10 * [{"recall", "fmr"}]


def test_a_threshold_is_not_chosen_on_people_who_are_trained_or_tested_on(finished, monkeypatch, capfd):
    root = finished.parents[1]
    write_folder(root / "unseen", ("anna", "ben", "cleo", "dora"))
    unseen = "--data-root", "unseen", "--data", "folder"
    for options, said in (
        (("--fmr", 0.1), "--fmr: the model was trained on all people of "),
        ((*unseen, "--fmr", 0.1), "--fmr: all people of unseen are in the test set, but a threshold is chosen on oth"),
        ((*unseen, "data.test_fraction=0.5", "--fmr", 0.1), "fmr 0.1: needs at least 10 pairs of different people, bu"),
        (("--fmr", 0.1, "--threshold", 0.5), "--fmr: chooses a threshold, and --threshold gives one; leave one of"),
        (("--rerank", "--threshold", 0.5), "--threshold, --fmr: need cosine similarities; --rerank replaces them;"),
        (
            ("--flip", "--threshold", 0.5),
            "--threshold, --fmr: need cosine similarities; with --flip give --renormalise",
        ),
    ):
        assert said in refused(monkeypatch, root, capfd, evaluate, "--checkpoint", finished, *options)


def test_reranking_is_asked_for_and_named(finished, monkeypatch, capfd):
    plain, again = (evaluated(monkeypatch, finished, *options) for options in ((), ("--rerank",)))
    assert (plain["evaluated"]["rerank"], again["evaluated"]["rerank"]) == (False, True)
    assert plain["mean"] != again["mean"]
    assert capfd.readouterr().out.count("note: re-ranked: not to be compared with the papers' tables\n") == 1


def test_the_corrupted_set_is_evaluated_ten_times(finished, monkeypatch, capfd):
    clean, corrupted, again = (
        evaluated(monkeypatch, finished, *options) for options in ((), ("--corrupted",), ("--corrupted",))
    )
    assert (len(clean["trials"]), len(corrupted["trials"])) == (2, 10)  # as asked for, and as published
    assert corrupted == again
    assert corrupted["trials"] != 5 * clean["trials"]
    printed = capfd.readouterr().out
    assert "shots 1, flip no, renormalise no, rerank no, corrupted yes\n" in printed
    assert again["checksum"] in printed


def test_the_corruption_sheet_is_drawn_of_a_picture_at_the_models_size(finished, monkeypatch):
    evaluated(monkeypatch, finished, "--corruption-sheet", "sheet.png")
    with Image.open(finished.parents[1] / "sheet.png") as sheet:
        assert (sheet.format, sheet.height) == ("PNG", 12 + 5 * (32 + 4))


def test_frost_and_trials_belong_to_some_evaluations(finished, monkeypatch, capfd):
    for options, said in (
        (("--frost", "ice"), "--frost: only with --corrupted or --corruption-sheet"),
        (("--corrupted", "--trials", 3), "--trials: corrupted pictures are searched only in the protocol's first"),
    ):
        given = "--checkpoint", finished / "model.safetensors", *options
        assert said in refused(monkeypatch, finished.parents[1], capfd, evaluate, *given)


def test_the_best_epoch_and_chosen_ones_are_kept_on_request(tmp_path, monkeypatch):
    options = "stages.1.epochs=2", "train.iterations=1", "train.keep_epochs=[0,1,3]", "train.select=best"
    command(monkeypatch, tmp_path, train, *QUICK, *options, "train.evaluate_every=1")
    run = tmp_path / "runs/pmt-demo"
    evaluated = [row["evaluation"]["map"] for row in logged(run) if "evaluation" in row]
    assert len(evaluated) == 3
    result = json.loads((run / "result.json").read_text())
    assert result["trained"]["map"] == pytest.approx(max(evaluated))
    best = 1 + evaluated.index(max(evaluated))
    assert (result["best"]["epoch"], result["best"]["map"]) == (best, max(evaluated))
    assert (result["last"]["epoch"], result["last"]["map"]) == (3, evaluated[-1])
    names = "epoch-0", "epoch-1", "epoch-3", "last"
    before, first, third, last = (load_checkpoint(run / f"{name}.safetensors") for name in names)
    assert len(list(run.glob("epoch-*"))) == 3
    assert [before.meta["epoch"], first.meta["epoch"]] == [0, 1]
    untrained = {
        parameter.name: parameter.asnumpy()
        for parameter in build_model(load_config(run / "config.yaml")).get_parameters()
    }
    assert all(np.array_equal(array, untrained[name]) for name, array in before.arrays.items())
    assert all(np.array_equal(last.arrays[name], value) for name, value in third.arrays.items())
    assert any(not np.array_equal(first.arrays[name], value) for name, value in third.arrays.items())


def test_an_evaluation_does_not_count_in_the_speed_of_training(finished, tmp_path, monkeypatch, capfd):
    clock = 0.0

    def lasting(seconds, function):
        def timed(*arguments, **options):
            nonlocal clock
            clock += seconds
            return function(*arguments, **options)

        return timed

    for module in (trainer, log):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock))
    monkeypatch.setattr(Trainer, "queue_step", lasting(1, Trainer.queue_step))
    monkeypatch.setattr(evaluating, "evaluate_model", lasting(100, evaluating.evaluate_model))
    options = "train.iterations=3", "train.log_steps=2", "train.evaluate_every=1", "--output", tmp_path / "run"
    command(monkeypatch, finished.parents[1], train, *QUICK, *options)
    speeds = {row["step"]: row["images_per_second"] for row in logged(tmp_path / "run") if "evaluation" not in row}
    assert speeds == {2: 12, 4: 12, 6: 12}  # pictures in a step
    assert "| 12.0 images/s | 00:02 left" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("select", "epochs", "expected"),
    [
        ("last", (), {}),  # nothing but the last epoch was evaluated
        ("last", (1, 2), {"best": (2, 0.6), "last": (4, 0.5)}),  # the last epoch's is the result
        ("last", (1, 3), {"best": (4, 0.5), "last": (4, 0.5)}),
        ("last", (1, 2, 3, 4), {"best": (2, 0.6), "last": (4, 0.5)}),
        ("best", (2, 4), {"best": (2, 0.6), "last": (4, 0.5)}),
        ("best", (1, 2, 3), {"best": (2, 0.6)}),  # the last epoch was not evaluated
    ],
)
def test_the_best_and_the_last_epoch_are_told_where_they_were_evaluated(select, epochs, expected):
    maps = {1: 0.3, 2: 0.6, 3: 0.2, 4: 0.5}
    options = ["stages.0.epochs=2", "stages.1.epochs=2", "train.evaluate_every=1", f"train.select={select}"]
    config = load_config(CONFIG_ROOT / "demo.yaml", options)
    evaluations = [{"epoch": epoch, "map": maps[epoch]} for epoch in epochs]
    found = train._best_and_last(evaluations, config, {"map": maps[4] if select == "last" else maps[2]})
    assert {name: (metrics["epoch"], metrics["map"]) for name, metrics in found.items()} == expected


ON_A_TREE = [option for option in QUICK if not option.startswith(("data.synthetic", "evaluation.trials"))]
ON_A_TREE += ["train.num_identities=2", "model.pretrained=none"]


@pytest.mark.parametrize(("name", "write"), [("sysu", write_sysu_mm01), ("regdb", write_regdb), ("llcm", write_llcm)])
def test_the_papers_recipes_run_on_trees_in_the_real_layouts(tmp_path, monkeypatch, capfd, name, write):
    root = write(tmp_path / "tree")
    command(monkeypatch, tmp_path, train, "--config", CONFIG_ROOT / f"pmt/{name}.yaml", "--data-root", root, *ON_A_TREE)
    assert (tmp_path / f"runs/pmt-{name}/model.safetensors").exists()
    printed = capfd.readouterr().out
    assert "trained" in printed
    if name == "sysu":
        assert "note: identities with fewer than 2 pictures of a modality repeat them" in printed


def agw(*options):
    """The options of a tiny AGW on the procedural set, as one argument each."""
    head, tail = AGW.strip().split("}}\n")
    return ["--config", CONFIG_ROOT / "agw/sysu.yaml", head.replace("\n", " ") + "}}", *tail.split(), *options]


@pytest.fixture(scope="module")
def finished_agw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agw")
    with pytest.MonkeyPatch.context() as patch:
        command(patch, folder, train, *agw())
    return folder / "runs/agw-sysu"


def test_agw_trains_with_its_own_schedule_and_is_evaluated_by_modality(finished_agw, monkeypatch):
    rows = logged(finished_agw)
    assert [row["lr_full"] for row in rows] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert [row["lr_backbone"] for row in rows] == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert {"loss", "id", "wrt"} <= rows[0].keys()
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    again = evaluated(monkeypatch, finished_agw)
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ  # kernels' products take what the processor has
    trained = json.loads((finished_agw / "result.json").read_text())["trained"]
    assert again["mean"] == pytest.approx(trained, abs=1e-12)


def test_a_stopped_run_of_agw_resumes_bitwise(finished_agw, tmp_path, monkeypatch):
    stopped_at(monkeypatch, tmp_path, 3, *agw(), "--output", "stopped")
    command(monkeypatch, tmp_path, train, *agw(), "--output", "stopped", "--resume", "auto")
    weights = [load_checkpoint(run / "last.safetensors").arrays for run in (finished_agw, tmp_path / "stopped")]
    assert "momentum_buffer.non_local_3.0.g.weight" in weights[0]
    for name, array in weights[0].items():
        assert np.array_equal(array, weights[1][name]), name


def test_a_stop_in_the_last_step_comes_too_late_for_the_training(tmp_path, monkeypatch, capfd):
    log = TrainingLog.write

    def interrupted(self, done, planned):
        log(self, done, planned)
        if done == self.plan.steps:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainingLog, "write", interrupted)
    command(monkeypatch, tmp_path, train, *agw(), "--output", "run")
    assert {"model.safetensors", "result.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert "resuming" not in capfd.readouterr().out


def test_a_folder_that_holds_a_run_is_that_runs_alone(finished, tmp_path, monkeypatch, capfd):
    """Whatever file another run goes on from, or from none: the folder's may have been killed before it wrote one."""
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "last.safetensors").unlink()
    before = [(folder / name).read_bytes() for name in ("run.json", "metrics.jsonl")]
    other = *TINY.split(), *SHORT, "seed=1"
    stopped_at(monkeypatch, finished.parents[1], 1, *other, "--output", tmp_path / "other")
    for resume in ("auto", tmp_path / "other/last.safetensors"):
        given = *other, "--output", folder, "--resume", resume
        error = refused(monkeypatch, finished.parents[1], capfd, train, *given)
        assert error == f"error: {folder}: holds a run with another seed; choose another --output"
    assert [(folder / name).read_bytes() for name in ("run.json", "metrics.jsonl")] == before


def test_a_run_goes_on_in_its_folder_from_a_file_elsewhere(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "run")
    file = (folder / "last.safetensors").rename(tmp_path / "back.safetensors")
    given = *TINY.split(), *SHORT, "--output", folder, "--resume", file
    command(monkeypatch, finished.parents[1], train, *given)
    assert logged(folder) == logged(finished)


def test_a_run_from_before_gradients_were_clipped_goes_on_by_its_own_configuration(tmp_path, monkeypatch, capfd):
    stopped_at(monkeypatch, tmp_path, 2, *QUICK, "optimizer.clip_norm=null", "--output", "run")
    goes_on = "--output", "run", "--resume", "auto"
    error = refused(monkeypatch, tmp_path, capfd, train, *QUICK, *goes_on)
    assert "last.safetensors: was written with another optimizer.clip_norm; use the run's config.yaml, or " in error
    command(monkeypatch, tmp_path, train, "--config", "run/config.yaml", *goes_on)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["config"]["optimizer"]["clip_norm"] is None
    assert len(record["earlier_commands"]) == 1


def test_a_step_whose_loss_is_far_above_the_last_ones_of_its_stage_is_noted_once(tmp_path, monkeypatch, capfd):
    queue_step = Trainer.queue_step

    def scaled(self, *given):
        terms = queue_step(self, *given)
        return terms / terms[0] * (1.0 if self.step < 8 else 4.0 if self.step < 14 else 16.0)

    monkeypatch.setattr(Trainer, "queue_step", scaled)
    # Three steps are read at once.
    command(monkeypatch, tmp_path, train, *QUICK, "train.iterations=8", "train.log_steps=3")
    notes = [line for line in capfd.readouterr().out.splitlines() if "times the largest" in line]
    assert len(notes) == 1
    what = "note: epoch 2, step 15: the loss 16.0000 is 4.0 times the largest of the last steps"
    remedy = "if it does not recover, train again with optimizer.clip_norm=1 or less, or a lower optimizer.lr"
    assert notes[0] == f"{what}; {remedy}"


@pytest.mark.parametrize(("since", "times"), [(19, None), (24, None), (25, 4.0)])
def test_a_large_loss_counts_for_25_steps(since, times):
    """With 20 before the last five a loss is compared: here 4 after 3 and ones."""
    jumps = Jumps()
    assert [jumps.times(loss) for loss in [3.0, *[1.0] * since]] == [None] * (since + 1)
    assert jumps.times(4.0) == times


def test_a_loss_that_is_not_finite_stops_the_run_with_its_name_and_place(tmp_path, monkeypatch, capfd):
    # Each step takes 1e8 times a weight from itself.
    options = "train.iterations=8", "optimizer.lr=1e4", "optimizer.weight_decay=1e4"
    error = refused(monkeypatch, tmp_path, capfd, train, *QUICK, *options)
    assert re.match(r"error: loss=(nan|inf), .* at epoch 1, step \d; no checkpoint yet; lower optimizer.lr", error)
    assert not (tmp_path / "runs/pmt-demo/model.safetensors").exists()


def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path, monkeypatch, capfd):
    queue_step = Trainer.queue_step

    def spoiled(self, *given):
        terms = queue_step(self, *given)
        if self.step == 3:  # the last, whose loss is finite
            weight = next(iter(self.model.get_parameters()))
            ops.assign(weight, weight * float("nan"))
        return terms

    monkeypatch.setattr(Trainer, "queue_step", spoiled)
    error = refused(monkeypatch, tmp_path, capfd, train, *QUICK)
    assert re.search(r"last\.safetensors: not written, as values are not finite: 1 \(.*\); lower optimizer\.lr", error)
    assert load_checkpoint(tmp_path / "runs/pmt-demo/last.safetensors").meta["step"] == 2


def test_a_run_is_not_resumed_on_other_pictures(tmp_path, monkeypatch, capfd):
    root = write_sysu_mm01(tmp_path / "tree")
    recipe = ["--config", CONFIG_ROOT / "pmt/sysu.yaml", "--data-root", root, *ON_A_TREE]
    command(monkeypatch, tmp_path, train, *recipe)
    picture = min(path for path in root.glob("cam*/*/*") if path.suffix.lower() == ".jpg")
    picture.write_bytes(picture.read_bytes() + b"more")
    capfd.readouterr()
    assert "have changed since" in refused(monkeypatch, tmp_path, capfd, train, *recipe, "--resume", "auto")


def test_memory_hardly_grows_with_the_steps(tmp_path, monkeypatch):
    resident = []
    step = Step.__call__

    def watched(self, *arguments):
        terms = step(self, *arguments)
        resident.append(psutil.Process().memory_info().rss)
        return terms

    monkeypatch.setattr(Step, "__call__", watched)
    stages = "stages=[{epochs: 1, losses: {id: {}, pht: {stage: 2}, msel: {weight: 0.5}, dcl: {weight: 0.5}}}]"
    command(monkeypatch, tmp_path, train, *TINY.split(), stages, "train.iterations=100", "train.log_steps=20")
    late = np.array(resident[40:], np.float64)
    assert len(late) == 60
    assert np.polyfit(np.arange(len(late)), late, 1)[0] < 40e3  # 15 to 25 kB a step, over 1,000 of them


def test_the_methods_have_folders_of_their_own_for_the_same_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = re.findall(
        r"^python ms_vireid/train.py (.*sysu.yaml .*SYSU-MM01.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    begun = []
    monkeypatch.setattr(train.Training, "train", lambda self, _: begun.append(self.folder.path.as_posix()))
    write_sysu_mm01(tmp_path / "SYSU-MM01")
    for line in lines:
        command(monkeypatch, tmp_path, train, *shlex.split(line), "train.num_identities=2", "train.num_instances=2")
    assert begun == ["runs/pmt-sysu", "runs/mun-sysu", "runs/agw-sysu"]


def test_several_checkpoints_have_a_mean_and_a_deviation(finished, monkeypatch, tmp_path, capfd):
    root = finished.parents[1]
    files = finished, finished / "last.safetensors"
    command(monkeypatch, root, evaluate, "--checkpoint", *files, "--json", "several.json")
    several = json.loads((root / "several.json").read_text())
    assert [run["checkpoint"] for run in several["runs"]] == list(map(str, files))
    maps = [run["mean"]["map"] for run in several["runs"]]
    assert several["mean"]["map"] == pytest.approx(sum(maps) / 2)
    assert several["std"]["map"] == pytest.approx(abs(maps[0] - maps[1]) / 2)
    assert "mean: over the 2 checkpoints, ± standard deviation" in capfd.readouterr().out
    same = finished, finished / "model.safetensors"
    assert "is given twice" in refused(monkeypatch, root, capfd, evaluate, "--checkpoint", *same)
