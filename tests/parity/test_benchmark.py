"""The benchmark: what it measures and writes, that it refuses to time different work, and its one-line errors."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.devices import host
from ms_vireid.models.vit import GELU
from ms_vireid.programs.kernels.install import KERNELS
from parity import benchmark, workers
from parity.pictures import loaders
from parity.workers import BOUND, Work

ROOT = Path(__file__).parents[2]
SMALL_VIT = ("model.embed_dim=32", "model.depth=2", "model.num_heads=2", "model.num_classes=7")
SMALL_MUN = ("model.layers=[1, 1, 1, 1]", "model.width=8", "model.ratios=[2, 3]", "data.image_size=[48, 24]")


def run_benchmark(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--device", "CPU", *map(str, arguments)])
    benchmark.main()


def work(kind, config, overrides, folder, **options):
    batch = ("train.num_identities=2", "train.num_instances=2", "model.num_classes=7")
    return Work(kind, config, (*overrides, *batch), "CPU", str(folder), **options)


@pytest.mark.parametrize(
    ("config", "overrides", "stage"),
    [("pmt/sysu.yaml", SMALL_VIT, 1), ("mun/sysu.yaml", SMALL_MUN, 0)],
    ids=["PMT", "MUN"],
)
def test_both_begin_with_the_same_weights_and_go_on_alike(config, overrides, stage, tmp_path):
    step = work("train_step", config, overrides, tmp_path, stage=stage)
    workers.make_weights(step)
    row = benchmark._side_by_side(workers.sides(step), repeats=2)
    for framework in workers.FRAMEWORKS:
        assert row["first_s"][framework] > row[f"{framework}_s"]  # imports included
        assert 0.1 < row["peak_gib"][framework] < 8


def test_a_step_without_a_kernel_goes_without_it(monkeypatch, tmp_path):
    calls = []
    original = KERNELS[GELU]
    monkeypatch.setitem(KERNELS, GELU, lambda cell, x: calls.append(cell) or original(cell, x))
    step = work("train_step", "pmt/sysu.yaml", (*SMALL_VIT, "data.image_size=[64, 32]"), tmp_path)
    workers.make_weights(step)
    expected = workers._mindspore_side(step)()
    assert len(calls) == 2  # blocks
    assert workers._mindspore_side(replace(step, without="GELU"))() == pytest.approx(expected, rel=1e-5)
    assert len(calls) == 2


def test_a_kernels_worth_is_the_time_without_it_over_that_with_it(monkeypatch):
    sides = []
    monkeypatch.setattr(workers, "make_weights", lambda work: None)
    monkeypatch.setattr(
        benchmark,
        "_side_by_side",
        lambda both, repeats: sides.extend(both) or benchmark._ratio([3.0] * repeats, [2.0] * repeats),
    )
    given = {"identities": 2, "instances": 2, "repeats": 2, "match": "PMT, GELU", "device": "CPU", "overrides": []}
    rows = dict(benchmark._kernels(benchmark.argparse.Namespace(**given)))
    assert rows == {"PMT, GELU": {"without_s": 3.0, "with_s": 2.0, "ratio": 1.5, "spread": [1.5, 1.5]}}
    assert [(side, work.without) for side, work in sides] == [("mindspore", "GELU"), ("mindspore", "")]


def test_every_kernel_is_timed():
    assert {kernel for _, kernel in benchmark._KERNEL_ROWS.values()} == {BOUND, *(kind.__name__ for kind in KERNELS)}
    assert {model for model, _ in benchmark._KERNEL_ROWS.values()} == workers.MODELS.keys()


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_neighbours():
    row = benchmark._ratio([2.0, 5.0, 9.0], [4.0, 3.0, 10.0])
    assert row == {"mindspore_s": 5.0, "torch_s": 4.0, "ratio": 1.25, "spread": [0.5, pytest.approx(5 / 3)]}


def test_figures_above_their_limits_end_in_exit_code_1(monkeypatch, capsys):
    def rows(_arguments):
        yield "small", {"ours_s": 0.3, "argsort_s": 0.2, "ratio": 1.5, "spread": [1.4, 1.6]}
        yield "large", {"ours_s": 0.1, "argsort_s": 0.2, "ratio": 0.5, "spread": [0.4, 0.6]}

    monkeypatch.setitem(benchmark._TABLES, "ranking", (rows, *benchmark._TABLES["ranking"][1:]))
    with pytest.raises(SystemExit) as stopped:
        run_benchmark(monkeypatch, "--only", "ranking")
    assert stopped.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "ranking: small: ratio is 1.5, its limit 1"


def test_of_the_corruptions_the_mean_has_a_limit():
    def costs(mean):
        return {"corruptions": {"fog": {"ms_per_picture": 40.0}, "mean": {"ms_per_picture": mean}}}

    assert benchmark.missed(costs(15.0)) == []
    assert benchmark.missed(costs(15.5)) == ["corruptions: mean: ms_per_picture is 15.5, its limit 15"]


def test_a_workers_seconds_are_those_of_its_work(tmp_path):
    features = work("inference", "pmt/sysu.yaml", SMALL_VIT, tmp_path, images=4)
    workers.make_weights(features)
    worker = workers.start("torch", features)
    assert worker.value.shape == (4, 32)
    assert 0 < worker.run() < worker.first
    worker.close()
    assert worker.process.exitcode == 0


def test_different_work_is_not_timed(tmp_path):
    features = work("inference", "pmt/sysu.yaml", SMALL_VIT, tmp_path, images=2)
    workers.make_weights(features)
    weights = dict(np.load(tmp_path / "torch.npz"))
    weights["base.pos_embed"] = weights["base.pos_embed"][:, ::-1]
    np.savez(tmp_path / "torch.npz", **weights)
    with pytest.raises(InputError, match=r"first results differ by .*parity/report\.py shows where"):
        benchmark._side_by_side(workers.sides(features), repeats=1)


def test_a_process_that_dies_is_one_line(tmp_path):
    features = work("inference", "pmt/sysu.yaml", SMALL_VIT, tmp_path, images=2)
    workers.make_weights(features)
    worker = workers.start("torch", features)
    worker.process.kill()
    with pytest.raises(InputError, match=r"torch: the process has ended with -9 .*try smaller batches"):
        worker.run()


def test_the_growth_of_memory_is_that_of_the_later_steps(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "_MEMORY_ROWS", {"small": ("pmt/sysu.yaml", SMALL_VIT, 0, 8)})
    resident = iter((500, 900, 1000, 1000, 1000, 3000, 5000, 7000))
    monkeypatch.setattr(workers.Worker, "resident", lambda worker: worker.run() > 0 and next(resident))
    run_benchmark(monkeypatch, "--quick", "--only", "memory")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("small"))
    assert line.split() == ["small", "8", "2.0", "0.00"]


def test_a_process_says_what_it_keeps(tmp_path):
    loss = work("loss", "pmt/sysu.yaml", (), tmp_path, loss="ma")
    worker = workers.start("mindspore", loss)
    assert 10**8 < worker.resident() <= worker.close() * 2**30


@pytest.mark.parametrize(
    ("flags", "cap", "found"),
    [
        ("fpu avx2 avx512f", None, "AVX2 and AVX-512"),
        ("fpu avx2", "AVX2", "AVX2, ONEDNN_MAX_CPU_ISA=AVX2"),
        ("", None, "vector instructions not known"),
    ],
)
def test_the_machines_instruction_sets_are_named(monkeypatch, flags, cap, found):
    monkeypatch.setattr(host, "_of_processor", lambda name: flags)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    if cap:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert host.instruction_sets() == found


def test_figures_are_printed_and_written(monkeypatch, capsys, tmp_path):
    path = tmp_path / "figures.json"
    arguments = "--quick", "--only", "losses", "ranking", "corruptions", "--match", "m", "--json", path
    monkeypatch.setattr(benchmark, "LOSSES", ("ma",))
    monkeypatch.setattr(benchmark, "_RANKING_ROWS", {"small": (300, 200, 20)})
    monkeypatch.setattr(benchmark, "LIMITS", {})  # for an idle machine, and rows that are worth a thread
    run_benchmark(monkeypatch, *arguments)
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert {"device", "machine", "versions", "losses", "ranking", "corruptions"} <= figures.keys()
    assert figures["losses"]["ma"].keys() >= {"mindspore_s", "torch_s", "ratio", "spread"}
    assert figures["ranking"]["small"].keys() == {"ours_s", "argsort_s", "ratio", "spread"}
    assert all("m" in name and row["ms_per_picture"] > 0 for name, row in figures["corruptions"].items())
    printed = capsys.readouterr().out
    assert f"{figures['losses']['ma']['ratio']:.2f}" in printed
    assert printed.rstrip().endswith(f"wrote {path}")


def test_quick_takes_batches_that_every_recipe_accepts(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--quick"])
    arguments = benchmark._parse()
    assert arguments.device == "CPU"  # of auto
    for config, overrides, _ in workers.MODELS.values():
        batch = f"train.num_identities={arguments.identities}", f"train.num_instances={arguments.instances}"
        load_config(CONFIG_ROOT / config, [*overrides, *batch])


def test_a_device_that_is_not_there_is_refused_before_the_work():
    with pytest.raises(InputError, match="device Ascend: no Ascend NPU"):
        benchmark.found_device("Ascend")


PLAIN = "augmentation={flip: 0, erasing: 0, crop_padding: 0, infrared_jitter: 0}"


def test_both_loaders_read_the_same_pictures(tmp_path):
    synthetic = (
        "{train_identities: 9, val_identities: 1, test_identities: 2, images_per_camera: 2, image_size: [64, 32]}"
    )
    data = f"data={{name: synthetic, root: {tmp_path / 'pictures'}, workers: 0, synthetic: {synthetic}}}"
    overrides = [data, "data.image_size=[96, 48]", "train.iterations=3", "model.num_classes=10", PLAIN]
    ours, theirs, images = loaders(load_config(CONFIG_ROOT / "pmt/sysu.yaml", overrides))
    read = 0
    for (pictures, labels), (expected, expected_labels) in zip(ours(), theirs(), strict=True):
        assert np.array_equal(labels, expected_labels.numpy())
        # A level of 255 over the standard deviation: what is gray is decoded as such, or as three colours.
        assert np.abs(pictures - expected.numpy()).max() < 1.5 / 255 / 0.224
        read += len(pictures)
    assert read == images


def test_pictures_a_second_are_measured_of_both(monkeypatch):
    monkeypatch.setattr(benchmark, "_DATA_ROWS", {"PMT, 256x128": ("pmt/sysu.yaml", "none")})
    seconds = iter((2.0, 4.0))
    monkeypatch.setattr(benchmark, "_seconds", lambda work: work() and next(seconds))
    arguments = benchmark.argparse.Namespace(match="", quick=True, repeats=1)
    ((name, row),) = benchmark._data(arguments)
    assert name == "PMT, 256x128"
    assert row["speedup"] == 2.0
    assert row["mindspore_images_per_s"] == 10 * 64 / 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats 0: must be at least 1"),
        (["--identities", "-1"], "--identities -1: must be at least 1"),
        (["--match", "resnet101"], "--match resnet101: no row has this in its name"),
        (["--json", "nowhere/f.json"], "--json nowhere/f.json: its folder does not exist; make it first"),
        (["--only", "speed"], "argument --only: invalid choice: 'speed'"),
        (["model.depth=x", "--only", "inference", "--match", "PMT"], "model.depth"),
        (
            ["train.amp=true", "--only", "inference", "--match", "PMT"],
            "train.amp=true: PyTorch's side computes in float32",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    result = subprocess.run(
        [sys.executable, "parity/benchmark.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
