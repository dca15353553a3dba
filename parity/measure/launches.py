"""What training steps at full size ask of a GPU and of an Ascend, counted on their stand-ins, each method and mode in a
process of its own: `parity/benchmark.py --only launches`."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.devices import runtime
from parity.stand_in import DEVICES, build, counts, functions, missing

LIMIT_S = 1800.0  # of a row
SETTLING, COUNTED = 20, 4  # steps; an Ascend takes memory by the page, the last ones within a dozen steps
MODES = {
    "compiled": ("train.program=graph",),
    "compiled amp": ("train.program=graph", "train.amp=true"),
    "compiled recompute": ("train.program=graph", "train.recompute=true"),
    "compiled amp recompute": ("train.program=graph", "train.amp=true", "train.recompute=true"),
    "PyNative": ("train.program=operators",),
}


def names(models: dict[str, tuple]) -> dict[str, tuple[str, str, tuple[str, ...], int]]:
    """Rows: a device, a method, which the first word of a benchmark's row is, and a mode; with the device,
    configuration, overrides and stage."""
    rows = {}
    for device in DEVICES:
        for model, (config, overrides, stage) in models.items():
            method = model.split()[0]
            for mode, switches in MODES.items():
                if method == "PMT" or "recompute" not in mode:
                    rows[f"{device}: {method} {mode}"] = (device, config, (*overrides, *switches), stage)
    return rows


def count(rows: dict[str, tuple], match: str, overrides: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """Of the rows whose name holds `match`: what a step launches, copies, waits for and allocates once all is warm, the
    peak of device memory, and how long the first step took, which compiles; beside PyTorch's operators.

    Raises:
        InputError: the stand-in cannot be built here, or a row has failed.
    """
    from parity.measure import limits

    works = {}
    for name, (device, config, switches, stage) in rows.items():
        if match not in name:
            continue
        if reason := missing(device):
            raise InputError(f"{reason}; --only leaves launches out")
        stand_in = build(device)
        values = ["model.num_classes=395", *switches, *overrides]
        command = [sys.executable, "-m", "parity.measure.launches", device, config, str(stage), *values]
        try:
            with tempfile.TemporaryDirectory() as folder:  # for what MindSpore leaves behind
                done = stand_in.run(command, LIMIT_S, stand_in.environment(values=False), cwd=folder)
        except subprocess.TimeoutExpired:
            raise InputError(f"{name}: still compiling or hanging after {LIMIT_S:g} s, and killed") from None
        lines = done.stdout.splitlines() or [""]
        if done.returncode:
            raise InputError(f"{name}: ended with {done.returncode}: {lines[-1]}")
        if config not in works:
            loaded = load_config(CONFIG_ROOT / config, ["model.num_classes=395", *overrides])
            works[config] = limits.work_of(loaded, stage)
        yield name, json.loads(lines[-1]) | {"torch_launches": works[config].launches}


def count_steps(device: str, config: Config, stage: int) -> dict:
    """In a process on the device's stand-in: the first step, a few more, and then several, queued as in training."""
    runtime.set_up(device)
    import mindspore as ms

    from ms_vireid.engine.optimizer import build_optimizer
    from ms_vireid.engine.train_step import StageLoss, TrainStep, loss_scaler
    from ms_vireid.models import build_model
    from ms_vireid.programs.prepare import training_program

    model = build_model(config)
    model.set_train()
    optimizer = build_optimizer(model, config)
    loss = StageLoss(config.stages[stage].losses, config.train.num_instances)
    scaler = loss_scaler() if config.train.amp else None
    step = TrainStep(model, loss, optimizer, training_program(config.train), scaler)
    batch = 2 * config.train.num_identities * config.train.num_instances
    images = np.zeros((batch, 3, *config.data.image_size), np.float32)
    labels = np.zeros(batch, np.int32)
    rates = [config.optimizer.lr] * len(optimizer.groups)

    def by_name() -> int:
        return sum(calls for name, calls in functions().items() if name.startswith("by name: "))

    def asked(steps: int) -> np.ndarray:
        """Counts of so many steps and of the waiting for the last one; then operators handed over by name."""
        before, named = counts(), by_name()
        for _ in range(steps):
            step(images, labels, 0, 0.0, optimizer.scalars(1, rates))
        ms.runtime.synchronize()
        return np.array([*astuple(counts() - before), by_name() - named])

    begun = time.perf_counter()
    asked(1)
    first = time.perf_counter() - begun
    asked(SETTLING)
    values = (asked(1 + COUNTED) - asked(1)) / COUNTED
    named = dict(zip(("launches", "copies", "waits", "allocations", "by_name"), values.tolist(), strict=True))
    return named | {"batch": batch, "peak_gib": ms.runtime.max_memory_allocated() / 2**30, "first_s": first}


def main() -> None:
    device, config, stage, *overrides = sys.argv[1:]
    print(json.dumps(count_steps(device, load_config(CONFIG_ROOT / config, overrides), int(stage))))


if __name__ == "__main__":
    run(main)
