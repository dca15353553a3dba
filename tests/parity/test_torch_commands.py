"""torch_ref's commands: what a trained checkpoint is evaluated to, in both frameworks, and in half precision."""

import json
import sys
from importlib import import_module

import numpy as np
import pytest
import torch

from ms_vireid import train as ms_train
from ms_vireid.checkpoints.weights import read_checkpoint
from ms_vireid.command import running
from ms_vireid.command.errors import InputError
from parity import benchmark, convert, report
from tests.data.tree import write_sysu_mm01
from tests.parity.test_convert_training import RECIPE
from torch_ref import evaluate, train
from torch_ref.engine.checkpoint import load_checkpoint
from torch_ref.engine.device import round_products


def run(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", ["x.py", *map(str, arguments)])
    command.main()


@pytest.fixture
def trained(monkeypatch, tmp_path):
    path = tmp_path / "a.safetensors"
    run(monkeypatch, train, "--device", "cpu", "--data-root", tmp_path / "data", "--output", path, *RECIPE)
    return path


@pytest.mark.parametrize("another", [[], ["--data", "sysu_mm01"]], ids=["its own set", "another"])
def test_both_frameworks_evaluate_a_checkpoint_alike(monkeypatch, tmp_path, trained, another):
    root = write_sysu_mm01(tmp_path / "sysu") if another else tmp_path / "data"
    given = [*another, "--data-root", root, "--json"]
    ours, theirs, report = tmp_path / "ms.json", tmp_path / "torch.json", tmp_path / "r.md"
    options = ["--report", report, "--device", "cpu", "--checkpoint", trained, "--tf32", "evaluation.trials=1"]
    run(monkeypatch, evaluate, *given, theirs, *options)
    assert torch.backends.cuda.matmul.allow_tf32  # which changes nothing on a CPU
    round_products(False)
    run(monkeypatch, convert, trained, tmp_path / "b.safetensors")
    run(
        monkeypatch,
        import_module("ms_vireid.evaluate"),
        "--device",
        "CPU",
        "--checkpoint",
        tmp_path / "b.safetensors",
        "--trials",
        1,
        *given,
        ours,
    )
    theirs, ours = (json.loads(path.read_text()) for path in (theirs, ours))
    assert theirs["evaluated"]["trained_on"] == "synthetic"
    assert theirs["mean"] == pytest.approx(ours["mean"], abs=1e-6)
    assert {k: theirs[k] for k in ("evaluated", "checksum")} == {k: ours[k] for k in ("evaluated", "checksum")}
    head, rule, row, _, command = report.read_text().splitlines()
    assert {line.count("|") for line in (head, rule, row)} == {9}
    assert f" {100 * theirs['mean']['rank1']:.2f} " in row
    assert command.startswith("`python torch_ref/evaluate.py --data")


def test_both_frameworks_hand_on_what_their_first_weights_were_trained_on(monkeypatch, tmp_path, trained):
    given = ("--data-root", tmp_path / "data", *RECIPE, f"model.pretrained={trained}")
    steps = {"torch": (train, "--device", "cpu", "--steps", "1"), "ms": (ms_train, "--device", "CPU")}
    outputs = {"torch": tmp_path / "torch.safetensors", "ms": tmp_path / "run"}
    for name, step in steps.items():
        run(monkeypatch, *step, "--output", outputs[name], *given)
    first = read_checkpoint(trained).meta
    theirs, ours = read_checkpoint(outputs["torch"]).meta, read_checkpoint(outputs["ms"] / "model.safetensors").meta
    assert "seen_before" not in first
    assert theirs["seen_before"] == ours["seen_before"] == theirs["seen"] == ours["seen"] == first["seen"]


def test_a_key_that_is_not_of_the_protocol_and_a_gpu_that_is_not_there_are_refused(monkeypatch, trained):
    with pytest.raises(InputError, match=r"model.depth=3: a trained model's protocol alone"):
        run(monkeypatch, evaluate, "--checkpoint", trained, "model.depth=3")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="--device cuda: PyTorch sees no GPU"):
        run(monkeypatch, evaluate, "--checkpoint", trained, "--device", "cuda")


def test_a_checkpoint_does_not_say_where_pictures_are_read_from(monkeypatch, trained):
    with pytest.raises(InputError, match="give --data-root FOLDER"):
        run(monkeypatch, evaluate, "--checkpoint", trained)


@pytest.mark.parametrize(("amp", "scaled"), [("float16", True), ("bfloat16", False)])
def test_training_in_half_is_near_and_not_the_same(monkeypatch, tmp_path, trained, amp, scaled):
    path = tmp_path / "half.safetensors"
    given = ["--device", "cpu", "--data-root", tmp_path / "data", "--output", path, *RECIPE, f"train.amp={amp}"]
    run(monkeypatch, train, *given)
    whole, half = (load_checkpoint(one) for one in (trained, path))
    name = "base.blocks.0.mlp.fc1.weight"
    assert 0 < np.abs(whole.arrays[name] - half.arrays[name]).max() < 0.01
    assert half.meta.get("loss_scale") == ([1024.0, 6] if scaled else None)


@pytest.mark.parametrize(
    ("command", "given"),
    [(report, ()), (benchmark, ("--quick",)), (train, ()), (evaluate, ("--checkpoint", "a.safetensors"))],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_needs_pytorch_says_how_to_install_it(monkeypatch, command, given):
    monkeypatch.setattr(running, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs torch\b.*: pip install -e '\.\[parity\]'"):
        run(monkeypatch, command, *given)
