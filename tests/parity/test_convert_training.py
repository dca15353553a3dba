"""Training that changes framework on the way: the commands and the converter, there and back."""

import os
import signal
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from ms_vireid import train as ms_train
from ms_vireid.backends.backend import Step
from ms_vireid.command.errors import InputError
from tests.parity.convert_cases import convert
from tests.tiny_models import SMALL_RUN
from torch_ref import train as torch_train
from torch_ref.engine.checkpoint import load_checkpoint
from torch_ref.losses.stage import StageLoss

RECIPE = [*SMALL_RUN, "data.workers=0", "stages.1.epochs=1"]  # 6 steps; the stage changes after the third


# A key's bias and a shift of all features change no loss: their gradients are rounding, which Adam makes whole steps
# of. 6 steps reach 1e-3, so that the weights may be that far apart; the tolerance is 1e-6 where weights are small.
NOISE = 1e-3


def run(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, arguments), *RECIPE])
    command.main()


@pytest.fixture
def recipe(tmp_path):
    return ["--data-root", tmp_path / "data"]


def stop_after(monkeypatch, steps, owner=Step, name="__call__"):
    """SIGINT in the step of that number: the trainer finishes it and writes its state."""
    original, count = getattr(owner, name), [0]

    def call(*arguments, **options):
        count[0] += 1
        if count[0] == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def test_training_goes_on_in_the_other_framework_and_back(monkeypatch, tmp_path, recipe):
    run(monkeypatch, torch_train, *recipe, "--steps", 2, "--output", tmp_path / "a.safetensors")
    convert(monkeypatch, tmp_path / "a.safetensors", tmp_path / "ms.safetensors")
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, ms_train, *recipe, "--resume", tmp_path / "ms.safetensors", "--output", tmp_path / "run")
    convert(monkeypatch, tmp_path / "run/last.safetensors", tmp_path / "b.safetensors")
    resumed = "--resume", tmp_path / "b.safetensors", "--output", tmp_path / "c.safetensors"
    run(monkeypatch, torch_train, *recipe, "--steps", 2, *resumed)

    run(monkeypatch, torch_train, *recipe, "--output", tmp_path / "straight.safetensors")
    changed, straight = (load_checkpoint(tmp_path / name) for name in ("c.safetensors", "straight.safetensors"))
    assert changed.meta == straight.meta
    assert straight.meta["step"] == 6
    assert changed.arrays.pop("bottleneck.num_batches_tracked") == 2  # MindSpore's trainer does not count
    for name, value in changed.arrays.items():
        if name.startswith("exp_avg"):
            continue
        expected = straight.arrays[name]
        error = np.abs(value - expected)
        if name.endswith("attn.qkv.bias"):
            error[16:32] *= NOISE
        if name in ("base.norm.bias", "bottleneck.running_mean"):
            error *= NOISE
        # 1e-3 of the scale, as on the ladder
        assert error.max() <= 1e-3 * max(np.abs(expected).max(), 1e-3), name


def test_a_training_that_is_stopped_ends_its_step_and_is_resumed(monkeypatch, tmp_path, recipe, capfd):
    straight, stopped, resumed = (tmp_path / f"{name}.safetensors" for name in ("straight", "stopped", "resumed"))
    run(monkeypatch, torch_train, *recipe, "--steps", 2, "--output", straight)
    with monkeypatch.context() as patch:
        stop_after(patch, 1, StageLoss, "forward")
        with pytest.raises(KeyboardInterrupt):
            run(patch, torch_train, *recipe, "--output", stopped)
    assert capfd.readouterr().err.endswith(f"stopped at step 1; go on with --resume {stopped}\n")
    run(monkeypatch, torch_train, *recipe, "--steps", 1, "--resume", stopped, "--output", resumed)
    assert resumed.read_bytes() == straight.read_bytes()


def test_a_training_state_goes_on_with_its_data_elsewhere(monkeypatch, tmp_path, recipe):
    run(monkeypatch, torch_train, *recipe, "--steps", 1, "--output", tmp_path / "a.safetensors")
    (tmp_path / "data").rename(tmp_path / "moved")
    resume = ["--resume", tmp_path / "a.safetensors", "--steps", 1, "--output", tmp_path / "b.safetensors"]
    run(monkeypatch, torch_train, "--data-root", tmp_path / "moved", *resume, "data.workers=1", "data.cache=none")
    assert load_checkpoint(tmp_path / "b.safetensors").meta["step"] == 2


def test_a_training_state_of_another_recipe_or_of_none_is_refused(monkeypatch, tmp_path, recipe):
    run(monkeypatch, torch_train, *recipe, "--steps", 1, "--output", tmp_path / "a.safetensors")
    resume = [*recipe, "--resume", tmp_path / "a.safetensors", "--steps"]
    with pytest.raises(InputError, match="the recipe has 5 steps to go from 1"):
        run(monkeypatch, torch_train, *resume, 6)
    run(monkeypatch, torch_train, *resume, 5, "--output", tmp_path / "b.safetensors")
    with pytest.raises(InputError, match=r"b.safetensors: is at the last step, 6; there is nothing left to train"):
        run(monkeypatch, torch_train, *recipe, "--resume", tmp_path / "b.safetensors")
    for key, value in (("optimizer.lr", 0.5), ("train.tf32", True)):
        with pytest.raises(InputError, match=f"was written with another {key};"):
            run(monkeypatch, torch_train, *resume, 1, f"{key}={value}")
    save_file(load_checkpoint(tmp_path / "a.safetensors").arrays, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="holds no training state"):
        run(monkeypatch, torch_train, *resume, 1)


def test_an_output_that_cannot_be_is_refused_before_the_work(monkeypatch, tmp_path, recipe):
    with pytest.raises(InputError, match="its folder does not exist"):
        run(monkeypatch, torch_train, *recipe, "--output", tmp_path / "nowhere/a.safetensors")
