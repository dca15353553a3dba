"""The benchmark: what it measures and writes, that it refuses to time different work, and its one-line errors."""

import fcntl
import json
import select
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from mindspore.nn import GELU

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.devices import host
from ms_vireid.devices.replaceable import Replacement, title
from ms_vireid.programs.numba.table import CELLS, OTHERS, TABLE
from parity import benchmark, processes
from parity.measure import loaders, mindspore_side, pictures, sections, serving, steps, tuned, workers
from parity.measure.workers import BOUND, WINOGRAD, Work
from torch_ref import models as torch_models

SMALL_VIT = ("model.embed_dim=32", "model.depth=2", "model.num_heads=2", "model.num_classes=7")
SMALL_MUN = ("model.layers=[1, 1, 1, 1]", "model.width=8", "model.ratios=[2, 3]", "data.image_size=[48, 24]")


def run_benchmark(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--device", "CPU", *map(str, arguments)])
    benchmark.main()


def test_every_section_has_its_rows():
    assert tuple(sections.SECTIONS) == benchmark.SECTIONS


# As the command line gives them.
OPTIONS = {"identities": 2, "instances": 2, "images": 2, "repeats": 2, "steps": 1, "device": "CPU", "overrides": []}
OPTIONS |= {"gate": None, "kernels": None, "torch": ["eager"]}


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
    row = steps.measure(step, steps.start(workers.sides(step)), repeats=2)
    for framework in workers.FRAMEWORKS:
        assert row["first_s"][framework] > row[f"{framework}_s"]  # imports included
        assert 0.1 < row["peak_gib"][framework] < 8
        assert row["held_gib"][framework] is None  # on a CPU


@pytest.mark.parametrize(
    ("config", "overrides", "stage"),
    [("pmt/sysu.yaml", (*SMALL_VIT, "model.depth=1", "data.image_size=[64, 32]"), 1), ("mun/sysu.yaml", SMALL_MUN, 0)],
    ids=["PMT", "MUN"],
)
def test_compiled_pytorch_computes_the_same(config, overrides, stage, tmp_path):
    asked = replace(work("train_step", config, overrides, tmp_path, stage=stage), tuned=True)
    row = steps.measure(asked, steps.start(workers.sides(asked)), repeats=1)
    assert row["difference"] < 1e-4
    assert row["first_s"]["torch"] > row["torch_s"]


def test_requests_are_served_beside_onnx_runtime(monkeypatch):
    monkeypatch.setattr(serving, "REQUESTS", 8)
    overrides = [*SMALL_VIT, "data.image_size=[64, 32]"]
    names = ["PMT ViT-B/16 256x128, 1 at once", "PMT ViT-B/16 256x128, 16 at once"]
    rows = dict(serving.serving(names, Namespace(**OPTIONS | {"overrides": overrides, "repeats": 1})))
    assert [(row["threads"], row["requests"]) for row in rows.values()] == [(1, 8), (16, 16)]
    for row in rows.values():
        for side in ("ours", "onnx"):
            assert row[f"{side}_per_s"] > 0
            assert 0 < row[f"{side}_p99_s"] < row["requests"] / row[f"{side}_per_s"] + 1


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
    seen = {}
    monkeypatch.setattr(steps, "_compared", lambda works, _: seen.update(works) or iter(()))
    both = Namespace(**OPTIONS | {"torch": ["eager", "tuned"]})
    for section in (steps.train_steps, steps.inference):
        list(section(["AGW ResNet-50 288x144"], both))
        sides = {name: [work.tuned for _, work in sides] for name, sides in seen.items()}
        assert sides == {f"AGW ResNet-50 288x144{steps.TUNED}": [True] * 2, "AGW ResNet-50 288x144": [False] * 2}


def test_what_pytorch_does_not_compile_is_one_line(monkeypatch):
    def without_a_compiler(*_):
        raise torch._dynamo.exc.BackendCompilerFailed(print, FileNotFoundError("no g++\nat all"), None)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: without_a_compiler)
    with pytest.raises(
        InputError, match=r"not compile this here \(FileNotFoundError: no g\+\+\); it takes a C\+\+ com"
    ):
        tuned.compiled(print, torch.device("cpu"))()


def test_a_step_without_a_kernel_goes_without_it(monkeypatch, tmp_path):
    calls = []
    original = TABLE[GELU.construct].by
    counted = Replacement(lambda cell, x: calls.append(cell) or original(cell, x))
    monkeypatch.setitem(TABLE, GELU.construct, counted)
    step = work("train_step", "pmt/sysu.yaml", (*SMALL_VIT, "data.image_size=[64, 32]"), tmp_path)
    workers.make_weights(step)
    expected = mindspore_side.prepare(step)(1)
    assert len(calls) == 2  # blocks
    assert mindspore_side.prepare(replace(step, without="GELU"))(1) == pytest.approx(expected, rel=1e-5)
    assert len(calls) == 2


def test_a_kernels_worth_is_the_time_without_it_over_that_with_it(monkeypatch):
    sides = []
    monkeypatch.setattr(steps, "start", sides.extend)
    monkeypatch.setattr(steps, "measure", lambda *_: steps.ratio([3.0, 3.0], [2.0, 2.0]))
    rows = dict(steps.kernels(["PMT, GELU"], Namespace(**OPTIONS)))
    assert rows == {"PMT, GELU": {"without_s": 3.0, "with_s": 2.0, "ratio": 1.5, "spread": [1.5, 1.5]}}
    assert [(side, work.without) for side, work in sides] == [("mindspore", "GELU"), ("mindspore", "")]


def test_every_kernel_is_timed():
    cells = {title(key) for key in (CELLS | OTHERS)} - {"StageLoss", "GroupOptimizer"}  # these are no row's to time
    assert {kernel for _, kernel in steps.KERNEL_ROWS.values()} == {BOUND, WINOGRAD, *cells}


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_neighbours():
    row = steps.ratio([2.0, 5.0, 9.0], [4.0, 3.0, 10.0])
    assert row == {"mindspore_s": 5.0, "torch_s": 4.0, "ratio": 1.25, "spread": [0.5, pytest.approx(5 / 3)]}


def put_in_place(monkeypatch, section, names, rows):
    monkeypatch.setitem(sections.SECTIONS, section, sections.SECTIONS[section]._replace(names=names, rows=rows))


def test_a_figure_above_its_limit_ends_in_exit_code_1(monkeypatch, capsys):
    costs = {"fog": {"ms_per_picture": 40.0}, "mean": {"ms_per_picture": 15.5}}  # the mean alone has a limit
    put_in_place(monkeypatch, "corruptions", costs, lambda names, _arguments: costs.items())
    with pytest.raises(SystemExit) as stopped:
        run_benchmark(monkeypatch, "--only", "corruptions")
    assert stopped.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "corruptions: mean: ms_per_picture is 15.5, its limit 15"
    assert benchmark.missed({"ranking": {"small": {"ratio": 1.5}}}) == ["ranking: small: ratio is 1.5, its limit 0.8"]


def test_a_worker_says_how_long_its_work_took_and_what_it_keeps(tmp_path):
    features = work("inference", "pmt/sysu.yaml", SMALL_VIT, tmp_path, images=4)
    workers.make_weights(features)
    worker = workers.Worker("torch", features)
    assert worker.value.shape == (4, 32)
    assert 0 < worker.run() < worker.first
    assert 10**8 < worker.resident() <= worker.memory()[0] * 2**30
    worker.close()


def test_different_work_is_not_timed(monkeypatch, tmp_path):
    features = work("inference", "pmt/sysu.yaml", SMALL_VIT, tmp_path, images=2)
    original = workers.make_weights

    def planted(given):
        original(given)
        weights = dict(np.load(given.weights("torch")))
        weights["base.pos_embed"] = weights["base.pos_embed"][:, ::-1]
        np.savez(given.weights("torch"), **weights)

    monkeypatch.setattr(workers, "make_weights", planted)
    with pytest.raises(InputError, match=r"first results differ by .*parity/report\.py shows where"):
        steps.measure(features, steps.start(workers.sides(features)), repeats=1)


def test_a_process_that_dies_is_one_line(tmp_path):
    features = work("inference", "pmt/sysu.yaml", SMALL_VIT, tmp_path, images=2)
    workers.make_weights(features)
    worker = workers.Worker("torch", features)
    (process,) = worker.process._processes.values()
    process.kill()
    with pytest.raises(InputError, match=r"torch: a process was killed, as Linux does .*try smaller batches"):
        worker.run()


def test_a_measurement_of_several_steps_gives_the_seconds_of_one(monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "_do", lambda times: asked.append(times) or time.sleep(0.3))
    monkeypatch.setattr(workers, "_steps", 6)
    assert 0.05 <= workers._run() < 0.2
    assert asked == [6]


def test_with_a_gate_all_rows_start_before_one_is_measured(monkeypatch):
    done = []
    monkeypatch.setattr(steps, "start", lambda sides, together=False: done.append(("start", together)) or sides)
    monkeypatch.setattr(steps, "measure", lambda *_: done.append("measure") or {})
    for gate in ("gate", None):
        list(steps.losses(["ma", "ia"], Namespace(**OPTIONS | {"gate": gate})))
    assert done[:4] == [("start", True), ("start", True), "measure", "measure"]
    assert done[4:] == [("start", False), "measure", ("start", False), "measure"]


def test_what_a_gate_holds_back_is_measured_by_one_process_at_a_time(tmp_path):
    gate, ready = tmp_path / "gate", tmp_path / "ready"
    script = f"""
from pathlib import Path
from parity import benchmark
with benchmark._alone(Path({str(ready)!r}), Path({str(gate)!r})):
    print("measures", flush=True)
"""
    with processes.session([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == f"ready to measure, once {gate} is there\n"
        assert ready.exists()
        with (tmp_path / "held").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (tmp_path / "held").rename(gate)
            assert not select.select([other.stdout], [], [], 0.5)[0]
        assert other.stdout.readline() == "measures\n"


class Event:
    """As of PyTorch's profiler."""

    def __init__(self, name, device, start, duration, annotation=False):
        self.name, self.device_type = lambda: name, lambda: f"DeviceType.{device}"
        self.start_ns, self.duration_ns = lambda: start, lambda: duration
        self.is_user_annotation = lambda: annotation


def test_a_profile_is_of_the_devices_kernels_and_each_moment_counts_once():
    events = [
        Event("product", "CUDA", 5_000_000, 2_000_000),
        Event("copy", "CUDA", 6_000_000, 3_000_000),  # beside it
        Event("product", "CUDA", 1_000_000, 2_000_000),
        Event("aten::mm", "CPU", 0, 9_000_000),
        Event("Optimizer.step#AdamW.step", "CUDA", 0, 9_000_000, annotation=True),
    ]
    found = workers.device_kernels(events, 2)
    assert found == {
        "steps": 2,
        "events": 3,
        "busy_ms": 6.0,
        "span_ms": 8.0,
        "kernels_calls_us": [["product", 2, 4000.0], ["copy", 1, 3000.0]],
    }
    said = benchmark.on_device({"mindspore": found, "torch": workers.device_kernels([], 2)})
    assert said.strip() == "on the device: MindSpore 3.0 ms a step, PyTorch 0.0"


def test_the_growth_of_memory_is_that_of_the_later_steps(monkeypatch):
    monkeypatch.setattr(steps, "MEMORY_ROWS", {"small": (("pmt/sysu.yaml", SMALL_VIT, 0), 8)})
    resident = iter((500, 900, 1000, 1000, 1000, 3000, 5000, 7000))
    monkeypatch.setattr(workers.Worker, "resident", lambda worker: worker.run() > 0 and next(resident))
    ((name, row),) = steps.memory(["small"], Namespace(**OPTIONS))
    assert sections.SECTIONS["memory"].line(name, row).split() == ["small", "8", "2.0", "0.00"]


def test_the_machines_instruction_sets_are_named(monkeypatch):
    monkeypatch.setattr(host, "_cpuinfo", lambda name: "fpu avx2 avx512f")
    monkeypatch.setattr(host, "CAPS", ("ONEDNN_MAX_CPU_ISA",))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert host.instruction_sets() == "AVX2 and AVX-512, ONEDNN_MAX_CPU_ISA=AVX2"


def test_figures_are_printed_and_written(monkeypatch, capsys, tmp_path):
    path = tmp_path / "figures.json"
    put_in_place(monkeypatch, "losses", ("ma",), steps.losses)
    put_in_place(monkeypatch, "ranking", ("small", "other"), pictures.ranking)
    monkeypatch.setattr(pictures, "RANKING_ROWS", {"small": (300, 200, 20)})
    monkeypatch.setattr(benchmark, "LIMITS", {})  # for an idle machine, and rows that are worth a thread
    run_benchmark(monkeypatch, "--quick", "--only", "losses", "ranking", "corruptions", "--match", "m", "--json", path)
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert {"device", "machine", "versions", "losses", "ranking", "corruptions"} <= figures.keys()
    assert figures["losses"]["ma"].keys() >= {"mindspore_s", "torch_s", "ratio", "spread"}
    assert figures["ranking"]["small"].keys() == {"ours_s", "argsort_s", "ratio", "spread"}
    assert all("m" in name and row["ms_per_picture"] > 0 for name, row in figures["corruptions"].items())
    printed = capsys.readouterr().out
    assert f"{figures['losses']['ma']['ratio']:.2f}" in printed
    assert printed.rstrip().endswith(f"wrote {path}")


def test_on_a_cpu_kernels_are_told_to_be_no_devices(monkeypatch, capsys, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    put_in_place(monkeypatch, "losses", ("ma",), lambda names, options: iter([("ma", steps.ratio([1.0], [2.0]))]))
    files = ["--kernels", tmp_path / "kernels.json", "--json", tmp_path / "figures.json", "--ready", tmp_path / "ready"]
    run_benchmark(monkeypatch, "--only", "losses", "--gate", gate, *files)
    assert "--kernels: there is no device to profile\n" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"gate", "ready", "figures.json"}


def test_quick_takes_batches_that_every_recipe_accepts(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--quick"])
    arguments = benchmark._parse()
    assert arguments.device == "CPU"  # of auto
    for config, overrides, _ in workers.MODELS.values():
        batch = f"train.num_identities={arguments.identities}", f"train.num_instances={arguments.instances}"
        load_config(CONFIG_ROOT / config, [*overrides, *batch])


PLAIN = "augmentation={flip: 0, erasing: 0, crop_padding: 0, infrared_jitter: 0}"


def test_both_loaders_read_the_same_pictures(tmp_path):
    synthetic = (
        "{train_identities: 9, val_identities: 1, test_identities: 2, images_per_camera: 2, image_size: [64, 32]}"
    )
    data = f"data={{name: synthetic, root: {tmp_path / 'pictures'}, workers: 0, synthetic: {synthetic}}}"
    overrides = [data, "data.image_size=[96, 48]", "train.iterations=3", "model.num_classes=10", PLAIN]
    ours, theirs, images = loaders.loaders(load_config(CONFIG_ROOT / "pmt/sysu.yaml", overrides))
    read = 0
    for (images_read, labels), (expected, expected_labels) in zip(ours(), theirs(), strict=True):
        assert np.array_equal(labels, expected_labels.numpy())
        # A level of 255 over the standard deviation: what is gray is decoded as such, or as three colours.
        assert np.abs(images_read - expected.numpy()).max() < 1.5 / 255 / 0.224
        read += len(images_read)
    assert read == images


def test_pictures_a_second_are_measured_of_both(monkeypatch, tmp_path):
    seconds = iter((2.0, 4.0))
    monkeypatch.setattr(pictures, "seconds", lambda work: work() and next(seconds))
    row = pictures.images_per_second("PMT, 256x128, decoded", str(tmp_path), 2, 1)
    assert row["speedup"] == 2.0
    assert row["mindspore_images_per_s"] == 2 * 64 / 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats 0: must be at least 1"),
        (["--identities", "-1"], "--identities -1: must be at least 1"),
        (["--match", "resnet101"], "--match resnet101: no row has this in its name"),
        (["--json", "nowhere/f.json"], "--json nowhere/f.json: its folder does not exist; make it first"),
        (["--device", "Ascend"], "device Ascend: no Ascend NPU"),
        (["--only", "speed"], "--only speed: there are train_step, inference, .*; see --help"),
        (["--only", "inference", "model.depth=x"], "model.depth"),
        (["--torch", "tuned", "--only", "losses"], "--torch tuned: is beside train_step and inference"),
        (["--ready", "f"], "--ready: says when --gate can be made; give both"),
        (["--gate", "f"], "--gate and --kernels: concern train_step, inference, losses, not data, ranking"),
        (["--gate", "nowhere/f"], "--gate nowhere/f: its folder does not exist; make it first"),
        (["--steps", "0"], "--steps 0: must be at least 1"),
    ],
)
def test_bad_input_is_told(monkeypatch, arguments, message):
    with pytest.raises(InputError, match=message):
        run_benchmark(monkeypatch, *arguments)
