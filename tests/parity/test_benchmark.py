"""The benchmark: what it measures and writes, that it refuses to time different work, and its one-line errors."""

import json
import re
import sys
import time
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.devices import cpu
from parity import benchmark
from parity.measure import sections, steps, tuned, workers
from parity.measure.work import MODELS, Work
from parity.processes import OneProcess
from torch_ref import models as torch_models

SMALL_VIT = ("model.embed_dim=32", "model.depth=2", "model.num_heads=2", "model.num_classes=7")
FEW_LOSSES = "stages=[{epochs: 1, losses: {id: {}, ma: {}}}]"  # with prototypes; compiled in a quarter of the time
SMALL_MUN = ("model.layers=[1, 1, 1, 1]", "model.width=8", "model.ratios=[2, 3]", "data.image_size=[48, 24]")


def run_benchmark(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--device", "CPU", *map(str, arguments)])
    benchmark.main()


def test_every_section_has_its_rows():
    assert tuple(sections.SECTIONS) == benchmark.SECTIONS


def work(kind, config, overrides, folder, **options):
    batch = ("train.num_identities=2", "train.num_instances=2", "model.num_classes=7")
    return Work(kind, config, (*overrides, *batch), "CPU", str(folder), **options)


@pytest.mark.parametrize(
    ("config", "overrides", "stage"),
    [
        ("mun/sysu.yaml", SMALL_MUN, 0),
        ("pmt/sysu.yaml", (*SMALL_VIT, "data.image_size=[64, 32]", "train.amp=float16"), 1),
    ],
    ids=["MUN", "PMT float16"],
)
def test_both_begin_with_the_same_weights_and_go_on_alike(config, overrides, stage, tmp_path):
    step = work("train_step", config, overrides, tmp_path, stage=stage)
    row = steps.measure(step, repeats=2)
    for framework in workers.FRAMEWORKS:
        assert row["first_s"][framework] > row[f"{framework}_s"]  # imports included
        assert 0.1 < row["peak_gib"][framework] < 8
        assert row["held_gib"][framework] is None  # on a CPU


@pytest.mark.parametrize(
    ("config", "overrides", "stage"),
    [
        ("pmt/sysu.yaml", (*SMALL_VIT, "model.depth=1", "data.image_size=[64, 32]"), 1),
        ("mun/sysu.yaml", (*SMALL_MUN, FEW_LOSSES), 0),
    ],
    ids=["PMT", "MUN"],
)
def test_compiled_pytorch_computes_the_same(config, overrides, stage, tmp_path):
    asked = replace(work("train_step", config, overrides, tmp_path, stage=stage), tuned=True)
    row = steps.measure(asked, repeats=1)
    assert row["difference"] < 1e-4
    assert row["first_s"]["torch"] > row["torch_s"]


@pytest.mark.parametrize(("config", "overrides"), [("pmt/sysu.yaml", SMALL_VIT), ("mun/sysu.yaml", SMALL_MUN)])
def test_layers_tuned_for_a_gpu_compute_the_same(config, overrides):
    config = load_config(CONFIG_ROOT / config, ["model.num_classes=7", "data.image_size=[48, 24]", *overrides])
    model = torch_models.build_model(config).eval()
    pictures = torch.randn(2, 3, 48, 24)
    expected = model(pictures, "visible")
    layout = tuned.tune_layers(model, torch.device("cuda"))
    assert (layout == torch.channels_last) == (config.model.name == "mun")
    found = model(pictures.to(memory_format=layout), "visible")
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.equal(found, expected)  # by other operators


def test_rows_of_tuned_pytorch_stand_beside_those_of_eager(monkeypatch):
    name, sizes = "AGW ResNet-50 288x144", {"identities": 2, "instances": 2, "images": 2, "repeats": 2, "steps": 1}
    both = Namespace(**sizes, device="CPU", overrides=[], torch=["eager", "tuned"])
    monkeypatch.setattr(steps, "measure", lambda work, _repeats: {"tuned": work.tuned})
    for kind, batch in (("train_step", 8), ("inference", 2)):
        rows = [(name, {"batch": batch, "tuned": False}), (f"{name}, PyTorch tuned", {"batch": batch, "tuned": True})]
        assert list(steps.rows(kind, [name], both)) == rows


def executable(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


WORKS = 'case "$*" in *--version*) echo "g++ 12" ;;'  # so far


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: str(folder / "missing"), "PyTorch finds no C.. compiler that works; install one, such as g"),
        (lambda folder: executable(folder / "c", "exit 1"), "PyTorch finds no C.. compiler that works; install one"),
        (
            lambda folder: executable(
                folder / "c", f"{WORKS} *) echo 'first: note'; echo 'x: error: no y'; exit 1; esac"
            ),
            r"PyTorch does not compile this here \(CppCompileError: x: error: no y\); leave tuned out$",
        ),
    ],
    ids=["missing", "broken", "fails"],
)
def test_a_compiler_is_asked_for_where_that_is_what_pytorch_lacks(make, message, tmp_path, monkeypatch):
    """In a process of its own, as PyTorch keeps what it found."""
    monkeypatch.setenv("CXX", make(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with OneProcess() as process, pytest.raises(InputError, match=f"^--torch tuned: {message}"):
        process.ask(compile_something)


def compile_something():
    tuned.compiled(lambda x: x.sin() * 2 + 1, torch.device("cpu"))(torch.ones(64, 64))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch._dynamo.exc.BackendCompilerFailed(print, ValueError("no such\nat all"), None),
            r"\(ValueError: no such\)",
        ),
        (torch._dynamo.exc.BackendCompilerFailed(print, ValueError(), None), r"\(ValueError: \)"),
        (FileExistsError(17, "File exists", "cache"), "File exists: 'cache'"),
    ],
)
def test_what_pytorch_does_not_compile_is_one_line(error, message, monkeypatch):
    def compute(*_):
        raise error

    monkeypatch.setattr(torch, "compile", lambda *_, **__: compute)
    with pytest.raises(InputError, match=f"not compile this here .*{message}.*; leave tuned out$"):
        tuned.compiled(print, torch.device("cpu"))()


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_neighbours():
    row = steps.ratio([2.0, 5.0, 9.0], [4.0, 3.0, 10.0])
    assert row == {"mindspore_s": 5.0, "torch_s": 4.0, "ratio": 1.25, "spread": [0.5, pytest.approx(5 / 3)]}


def test_a_worker_says_how_long_its_work_took_and_what_it_keeps_and_its_death_is_one_line(tmp_path):
    features = work("inference", "pmt/sysu.yaml", SMALL_VIT, tmp_path, images=4)
    worker = workers.Worker("mindspore", features)
    assert worker.value.shape == (4, 32)
    assert 0 < worker.run() < worker.first
    (process,) = worker.process._processes.values()
    process.kill()
    with pytest.raises(InputError, match=r"mindspore: a process was killed, as Linux does .*try smaller batches"):
        worker.run()


def test_different_work_is_not_timed(monkeypatch, tmp_path):
    features = work("inference", "pmt/sysu.yaml", SMALL_VIT, tmp_path, images=2)
    original = workers.Worker

    def planted(framework, given):
        if framework == "torch":
            weights = dict(np.load(given.weights))
            weights["base.pos_embed"] = weights["base.pos_embed"][:, ::-1]
            np.savez(given.weights, **weights)
        return original(framework, given)

    monkeypatch.setattr(steps, "Worker", planted)
    with pytest.raises(InputError, match=r"first results differ by .*parity/report\.py shows where"):
        steps.measure(features, repeats=1)


def test_a_measurement_of_several_steps_gives_the_seconds_of_one(monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "_do", lambda times: asked.append(times) or time.sleep(0.3))
    monkeypatch.setattr(workers, "_steps", 6)
    assert 0.05 <= workers._run() < 0.2
    assert asked == [6]


def test_the_machines_instruction_sets_are_named(monkeypatch):
    monkeypatch.setattr(cpu, "_cpuinfo", lambda name: "fpu avx2 avx512f")
    monkeypatch.setattr(cpu, "CAPS", ("ONEDNN_MAX_CPU_ISA",))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert cpu.instruction_sets() == "AVX2 and AVX-512, ONEDNN_MAX_CPU_ISA=AVX2"


def test_figures_are_printed_and_written(monkeypatch, capsys, tmp_path):
    path, row = tmp_path / "figures.json", steps.ratio([3.0, 3.0], [2.0, 2.0])
    row |= {name: {"mindspore": 1.5, "torch": None} for name in ("first_s", "peak_gib", "held_gib")}
    row["first_s"] = row["peak_gib"] = {"mindspore": 1.5, "torch": 2.5}
    monkeypatch.setattr(steps, "measure", lambda *_: dict(row))
    run_benchmark(monkeypatch, "--quick", "--only", "inference", "--match", "AGW", "--json", path)
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert {"device", "machine", "versions", "repeats"} <= figures.keys()
    assert figures["inference"] == {"AGW ResNet-50 288x144": {"batch": 4} | row}
    printed = capsys.readouterr().out
    shown = ("4", "3", "2", "1.50", "1.50 to 1.50", "1.5 / 2.5", "1.5 / 2.5", "1.5 / -")
    assert re.search(rf"^AGW ResNet-50 288x144 +{' +'.join(shown)}$", printed, re.MULTILINE)
    assert printed.rstrip().endswith(f"wrote {path}")


def test_quick_takes_batches_that_every_recipe_accepts(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--quick"])
    arguments = benchmark._parse()
    assert arguments.device == "CPU"  # of auto
    for config, overrides, _ in MODELS.values():
        batch = f"train.num_identities={arguments.identities}", f"train.num_instances={arguments.instances}"
        load_config(CONFIG_ROOT / config, [*overrides, *batch])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats 0: must be at least 1"),
        (["--identities", "-1"], "--identities -1: must be at least 1"),
        (["--match", "resnet101"], "--match resnet101: no row has this in its name"),
        (["--json", "nowhere/f.json"], "--json nowhere/f.json: its folder does not exist; make it first"),
        (["--device", "Ascend"], "device Ascend: no Ascend NPU"),
        (["--only", "speed"], "--only: invalid choice: 'speed'"),
        (["model.depth=x", "--only", "inference"], "model.depth"),
        (["--torch", "tuned", "--only", "launches"], "--torch: launches are counted on stand-ins for both devices"),
        (["--quick", "--repeats", "3", "--images", "2"], "--repeats, --images: --quick says how many; leave them out"),
        (["--only", "inference", "--identities", "3"], "--identities: no training step is timed; leave it out"),
        (["--steps", "0"], "--steps 0: must be at least 1"),
    ],
)
def test_bad_input_is_told(monkeypatch, arguments, message):
    with pytest.raises(InputError, match=message):
        run_benchmark(monkeypatch, *arguments)
