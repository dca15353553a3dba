"""Data-parallel training: two CPU processes that `msrun` starts, against one process on the batches of both."""

import json
import os
import random
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import psutil
import pytest

from ms_vireid import train
from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.data.batches import EvaluationBatches, TrainingBatches
from ms_vireid.data.readers import read_data
from ms_vireid.models.intermediate import MixedModality
from ms_vireid.models.noise import path_factors, position_noise
from tests import distributed_probe as probe
from tests.tiny_models import RECIPES

evaluate = import_module("ms_vireid.evaluate")  # the command
BIN = Path(sys.executable).parent
TRAIN = Path(train.__file__)
ACCIDENT = Path(__file__).with_name("distributed_run.py")
SMALL = """
data.workers=0 data.synthetic.train_identities=6 data.synthetic.val_identities=2 data.synthetic.test_identities=4
data.synthetic.images_per_camera=1 data.synthetic.image_size=[64,32]
evaluation.trials=2 evaluation.batch_size=3 evaluation.compare_untrained=false
train.num_instances=2 train.log_steps=1 train.checkpoint_steps=3 train.iterations=5
"""
# The one loss that is a mean over the devices' losses.
IDENTITY = ["data.image_size=[32,16]", "train.sync_batch_norm=true", "stages=[{epochs: 2, losses: {id: {}}}]"]
# Plain SGD: AdamW makes steps of full length out of gradients that are zero but for rounding.
PMT = [*SMALL.split(), *IDENTITY, *RECIPES["pmt"][1]]
PMT += ["optimizer={name: sgd, lr: 0.05, backbone_factor: 0.5, clip_norm: 1.0}"]
PMT += ["model.dropout=0.1", "model.drop_path=0.3", "schedule.warmup_epochs=1"]
STEPS = ["data.name=synthetic", "schedule.warmup_epochs=1", "schedule.milestones=[1]"]
MUN = ["--config", str(CONFIG_ROOT / "mun/sysu.yaml"), *STEPS, *SMALL.split(), *RECIPES["mun"][1], "stages.0.epochs=1"]
MUN += ["data.image_size=[24,24]"]
HALF = ["train.iterations=2", "train.amp=float16"]
TWO = ["train.num_identities=3"]  # of each of two devices
ONE = ["train.num_identities=6"]


def free_port():
    """One of those that no system gives to whoever asks for any: msrun takes it only seconds later."""
    while True:
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", random.SystemRandom().randrange(10_000, 32_768)))
            return one.getsockname()[1]


def launch(folder, script, *arguments, processes=2, variables=()):
    """Run a script in `folder`/work under msrun, its logs beside; nothing of it is left running. Returns its exit code,
    what the launcher showed, and the lines of the workers' own logs."""
    work, logs, shown = folder / "work", folder / "logs", folder / "msrun.out"
    work.mkdir(exist_ok=True)
    command = [
        BIN / "msrun",
        *(f"--worker_num={processes}", f"--local_worker_num={processes}", f"--master_port={free_port()}"),
        *("--join=True", f"--log_dir={logs}", script, *arguments),
    ]
    # msrun starts the first `python` that it finds.
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | dict(variables)
    with shown.open("w") as file:  # no pipe, which the launcher's own `tail` could hold open
        done = subprocess.run(list(map(str, command)), cwd=work, env=environment, stdout=file, stderr=file, timeout=900)
    left = [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(work)]
    assert not psutil.wait_procs(left, timeout=1)[1]  # the scheduler's own process dies just after it
    lines = [line for log in sorted(logs.glob("worker_*.log")) for line in log.read_text().splitlines()]
    return SimpleNamespace(
        code=done.returncode, shown=shown.read_text(), lines=[line for line in lines if not line.startswith("[INFO]")]
    )


def together(folder, *arguments, device="CPU", variables=()):
    """Train in two processes, without an accident."""
    done = launch(folder, TRAIN, "--device", device, "--output", "run", *TWO, *arguments, variables=variables)
    assert done.code == 0, done.shown
    return done


def alone(folder, module, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", [module.__name__, "--device", "CPU", *map(str, arguments)])
        run(module.main)


def state(run_folder):
    """Weights, running averages and the optimiser's moments of last.safetensors."""
    held = ms.load_checkpoint(str(run_folder / "last.safetensors"), format="safetensors")
    return {name: value.asnumpy() for name, value in held.items() if isinstance(value, ms.Parameter)}


def weights_of(run_folder):
    return {name: value for name, value in state(run_folder).items() if not name.startswith("momentum")}


def assert_alike(found, expected, tolerance, floor=1e-2):
    """`tolerance` is relative to each tensor's largest value, or to `floor` where that is smaller: biases start at 0,
    and some have no gradient but rounding."""
    assert found.keys() == expected.keys()
    errors = {}
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert np.isfinite(found[name]).all(), name
        errors[name] = np.abs(found[name] - value).max() / max(np.abs(value).max(), floor)
    worst = max(errors, key=errors.get)
    assert errors[worst] <= tolerance, f"{worst}: {errors[worst]:.2e}"


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    differing = [name for name, value in expected.items() if not np.array_equal(found[name], value)]
    assert not differing


def accident(folder, event, *arguments):
    return launch(folder, ACCIDENT, event, "--device", "CPU", "--output", "run", *TWO, *arguments)


def resumed(before, folder, *arguments):
    """What came of the launch `before`, its steps and state, and of the one that then resumed the run."""
    run = folder / "work/run"
    assert (run / "metrics.jsonl").exists(), (before.code, before.shown, before.lines)
    steps, held = len((run / "metrics.jsonl").read_text().splitlines()), state(run)
    return SimpleNamespace(before=before, steps=steps, held=held, lines=together(folder, *arguments).lines)


LAUNCHES = {
    "probe": lambda folder: launch(folder, Path(probe.__file__), folder),
    "PMT": lambda folder: together(folder, *PMT),
    "PMT, float16": lambda folder: together(folder, *PMT, *HALF),
    "MUN": lambda folder: together(folder, *MUN),
    "PMT, killed": lambda folder: resumed(accident(folder, "kill:7:0,1", *PMT), folder, *PMT, "--resume", "auto"),
    "MUN, stopped": lambda folder: resumed(accident(folder, "stop:1:1", *MUN), folder, *MUN, "--resume", "auto"),
    "PMT, broken": lambda folder: accident(folder, "broken:4:1", *PMT, "data.cache=none"),
    "mistaken": lambda folder: launch(folder, TRAIN, "--device", "CPU", "train.nonsense=1"),
}


AHEAD = "PMT", "probe", "PMT, broken", "mistaken"  # the others, which take long, are begun when they are asked for


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What came of launches, by their names; `folder` is where. Three at a time, as a launch waits half of its time."""
    pool, begun = ThreadPoolExecutor(3), {}

    def ask(name, *ahead):
        for each in (name, *ahead):
            if each not in begun:
                folder = tmp_path_factory.mktemp("launch")
                begun[each] = folder, pool.submit(LAUNCHES[each], folder)
        folder, result = begun[name]
        return SimpleNamespace(folder=folder, **vars(result.result()))

    yield ask
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def whole(launched):
    """Ten steps of PMT in two processes."""
    done = launched("PMT", *AHEAD)
    return SimpleNamespace(work=done.folder / "work", run=done.folder / "work/run", lines=done.lines)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    config = load_config(CONFIG_ROOT / "demo.yaml", [*PMT, f"data.root={root}/tree"])
    return config, read_data(config.data)


def with_identities(config, count):
    return config.model_copy(update={"train": config.train.model_copy(update={"num_identities": count})})


def test_the_devices_batches_are_the_batch_of_one_with_all_their_identities(tiny):
    config, data = tiny
    union = TrainingBatches(data.train, with_identities(config, 6))
    parts = [TrainingBatches(data.train, with_identities(config, 2), rank, 3) for rank in range(3)]
    for step in (0, 7):
        images, labels = union[step]
        batches = [part[step] for part in parts]
        for value, shares in ((images, [b[0] for b in batches]), (labels, [b[1] for b in batches])):
            halves = [share.reshape(2, 4, *share.shape[1:]) for share in shares]  # [2, PK, ...]
            assert np.array_equal(np.concatenate(halves, axis=1).reshape(value.shape), value)
        for _, own in batches:
            assert np.array_equal(own[:4], own[4:])
            assert len(set(own.tolist())) == 2
    passes = config.model_copy(update={"train": config.train.model_copy(update={"iterations": None})})
    lengths = [len(TrainingBatches(data.train, with_identities(passes, 6 // n), n - 1, n)) for n in (1, 2)]
    assert lengths[0] == lengths[1]


def test_each_batch_to_evaluate_is_one_devices(tiny):
    _, data = tiny
    whole = EvaluationBatches(data.test, (32, 16), 3).batches
    parts = [EvaluationBatches(data.test, (32, 16), 3, rank=rank, devices=3).batches for rank in range(3)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert sorted(index.tolist() for part in parts for index in part) == sorted(index.tolist() for index in whole)


def in_halves(parts):
    """The devices' rows in the order of the union: all first halves, then all second ones."""
    halves = [np.split(part, 2) for part in parts]
    return np.concatenate([half[0] for half in halves] + [half[1] for half in halves])


def test_masks_are_those_of_the_union():
    key = ms.Tensor(1234, ms.int32)
    noise = [position_noise(key, 6, 5, (rank, 2)).asnumpy() for rank in range(2)]
    assert np.array_equal(in_halves(noise), position_noise(key, 12, 5).asnumpy())

    paths = [path_factors(key, (0.5,) * 3, 16, (rank, 2)).asnumpy().T for rank in range(2)]
    union = path_factors(key, (0.5,) * 3, 32).asnumpy().T
    assert 0 < np.count_nonzero(union) < union.size
    assert np.array_equal(in_halves(paths), union)


@pytest.mark.parametrize("mixing", ["picture", "pixel"])
def test_mixed_pictures_are_those_of_the_union(mixing):
    key = ms.Tensor(1234, ms.int32)
    visible, infrared = (np.random.default_rng(i).random((6, 3, 4, 4), np.float32) for i in range(2))

    def mixed(rows, shard):
        modality = MixedModality(ms.nn.Identity(), mixing)
        modality.shard = shard
        return modality.picture(ms.Tensor(visible[rows]), ms.Tensor(infrared[rows]), key).asnumpy()

    parts = [mixed(slice(3 * rank, 3 * rank + 3), (rank, 2)) for rank in range(2)]
    assert np.array_equal(np.concatenate(parts), mixed(slice(None), (0, 1)))


@pytest.fixture(scope="module")
def found(launched):
    done = launched("probe", *AHEAD)
    assert done.code == 0, done.shown
    return [dict(np.load(done.folder / f"{rank}.npz")) for rank in range(probe.DEVICES)]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", probe.SHAPES)
def test_synchronised_batch_norm_is_that_of_the_union(found, name, jit):
    x, slope = probe.batch_of(probe.SHAPES[name])
    expected = probe.results_of(probe.batch_norm_of(probe.SHAPES[name]), x.astype(np.float32), slope, False)
    rows = [np.concatenate([part[f"{name}.{jit}.{i}"] for part in found]) for i in (0, 1)]
    weights = [sum(part[f"{name}.{jit}.{i}"] for part in found) for i in (2, 3)]
    # x is about 100 and float32: its offsets from the mean are known to 1e-5 of their own size.
    for what, value, wanted in zip(("y", "dx", "dgamma", "dbeta"), [*rows, *weights], expected[:4], strict=True):
        assert value == pytest.approx(wanted, abs=3e-5 * np.abs(wanted).max()), what
    for part in found:
        assert part[f"{name}.{jit}.4"] == pytest.approx(expected[4], rel=1e-6)
        assert part[f"{name}.{jit}.5"] == pytest.approx(expected[5], rel=3e-5)


@pytest.mark.parametrize("name", probe.SHAPES)
def test_running_averages_of_the_devices_own_batches_are_averaged(found, name):
    own = [part[f"{name}.own_mean"] for part in found]
    assert not np.array_equal(*own)
    for part in found:
        assert part[f"{name}.averaged_mean"] == pytest.approx(np.mean(own, axis=0), rel=1e-6)
    assert np.array_equal(*(part[f"{name}.averaged_variance"] for part in found))


def test_the_processes_tell_each_other_what_they_have(found):
    for part in found:
        assert part["any"].tolist() == [False, True, True]
        assert part["mean"].tolist() == [[0.5, 4.0]]
        assert part["filled"].tolist() == [[1, 2], [0, 0]]
        assert json.loads(str(part["broadcast"])) == probe.FROM_THE_FIRST


def test_two_processes_train_as_one_on_the_union_batch(whole, tmp_path):
    alone(tmp_path, train, "--output", "run", *ONE, *PMT)
    runs = whole.run, tmp_path / "run"
    assert_alike(*map(weights_of, runs), 1e-5)
    assert_alike(*map(state, runs), 3e-5)  # momenta are of gradients that nearly cancel
    logs = [(folder / "metrics.jsonl").read_text().splitlines() for folder in runs]
    losses = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert len(losses[0]) == 10
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_two_processes_train_as_one_in_float16(launched, tmp_path):
    alone(tmp_path, train, "--output", "one", *ONE, *PMT, *HALF)
    # float16 rounds to 5e-4, and each device's half of a gradient otherwise than the whole: 4.3e-4 seen.
    assert_alike(*map(weights_of, (launched("PMT, float16").folder / "work/run", tmp_path / "one")), 2e-3)


def test_the_first_process_alone_writes_and_prints(whole):
    assert sorted(path.name for path in whole.work.iterdir()) == ["run", "runs"]  # runs/data: the procedural set
    names = ["config.yaml", "last.safetensors", "lock", "metrics.jsonl", "model.safetensors", "result.json", "run.json"]
    assert sorted(path.name for path in whole.run.iterdir()) == names
    steps = [line for line in whole.lines if line.startswith("epoch ")]
    assert len(steps) == 10
    assert len([line for line in whole.lines if line.startswith("trained ")]) == 1
    assert json.loads((whole.run / "run.json").read_text())["device"].endswith(", 2 processes")


def test_the_shared_evaluation_gives_what_one_process_finds(whole, tmp_path):
    alone(tmp_path, evaluate, "--checkpoint", whole.run / "model.safetensors", "--json", "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    trained = json.loads((whole.run / "result.json").read_text())["trained"]
    assert again["mean"] == pytest.approx(trained, abs=1e-12)


def test_a_run_whose_processes_are_killed_is_resumed_bitwise(whole, launched):
    killed = launched("PMT, killed")
    assert killed.before.code != 0
    assert killed.steps == 7
    assert "resuming from run/last.safetensors at step 6 of 10" in killed.lines
    assert_same(state(killed.folder / "work/run"), state(whole.run))


def test_a_stop_of_one_process_stops_all_after_the_step_and_is_resumed_bitwise(launched):
    """MUN, whose prototypes remember each device's own batches."""
    stopped = launched("MUN, stopped", "MUN")
    stops = [line for line in stopped.before.lines if line.startswith("stopped")]
    assert (stopped.before.code, stops) == (1, ["stopped at step 2; go on with --resume auto --output run"])
    memories = stopped.held["devices.prototypes.memory"]
    assert memories.shape == (2, 3, 6, 4 * 8 * 4)
    assert not np.array_equal(*memories)
    assert_same(state(stopped.folder / "work/run"), state(launched("MUN").folder / "work/run"))


def assert_one_line(done, pattern):
    assert done.code != 0
    errors = [line for line in done.lines if not line.startswith(("device:", "run folder:", "epoch "))]
    assert len(errors) == 1, errors
    assert re.match(pattern, errors[0]), errors[0]


def test_an_error_of_one_process_ends_all_with_one_line(launched):
    done = launched("PMT, broken")
    assert_one_line(done, r"error: cam1/0001\.jpg: cannot be decoded")
    assert len([line for line in done.lines if line.startswith("epoch ")]) == 4
    assert (done.folder / "work/run/last.safetensors").exists()


def test_a_mistake_in_the_configuration_is_told_once(launched):
    assert_one_line(launched("mistaken"), r"error: .*'train\.nonsense'")


def test_a_run_of_two_processes_is_not_resumed_by_one(whole, tmp_path, capfd):
    [root] = (whole.work / "runs/data").iterdir()
    resumed = "--resume", whole.run / "last.safetensors", "--output", "x"
    with pytest.raises(SystemExit) as stopped:
        alone(tmp_path, train, *TWO, *PMT, f"data.root={root}", *resumed)
    assert stopped.value.code == 2
    assert "written by 2 processes, and this run has 1; resume with msrun --worker_num=2" in capfd.readouterr().err
