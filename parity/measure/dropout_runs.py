"""Run the trainings of dropout.py in several processes, and print the table of --output."""

import argparse
import itertools
import json
from collections.abc import Mapping
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import work
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.data.readers import read_data
from ms_vireid.devices import runtime
from ms_vireid.files.writing import append_line
from parity import processes
from parity.measure.dropout import SIDES, STEPS

SMALL = (
    "data={name: synthetic, image_size: [64, 32], workers: 0, synthetic: {train_identities: 40, val_identities: 2, "
    "test_identities: 4, images_per_camera: 2, image_size: [64, 32]}}",
    "model.embed_dim=48",
    "model.depth=3",
    "model.num_heads=3",
    "model.num_classes=42",
    "optimizer.lr=1e-3",
    "train.num_instances=2",
    f"train.iterations={STEPS}",
)


class Task(NamedTuple):
    """One side's trainings. dropout, drop_path: rates. seed: of weights, batches and pictures."""

    side: str
    dropout: float
    drop_path: float
    seed: int


Losses = Mapping[Task, list[list[float]]]  # of each noise, the mean of every `STEPS` steps


def main(arguments: argparse.Namespace) -> None:
    how = {option: getattr(arguments, option) for option in ("noises", "epochs", "overrides")}
    done = read(arguments.output, how)
    read_data(configuration(Task("outside", 0.0, 0.0, 0), arguments).data)  # made before many would make it
    wanted = itertools.product(range(arguments.seeds), arguments.sides, arguments.rates)
    missing = [task for seed, side, pair in wanted if (task := Task(side, *pair, seed)) not in done]
    with processes.executor(len(runtime.cores()) or 1, set_up) as others:
        for made in as_completed(others.submit(train, task, arguments) for task in missing):
            task, losses = made.result()
            append_line(arguments.output, json.dumps(task._asdict() | how | {"losses": losses}))
            print(task, " ".join(f"{loss:.3f}" for loss in np.mean(losses, axis=0)), flush=True)
    print(table(read(arguments.output, how)))


def read(path: Path, how: Mapping[str, Any]) -> dict[Task, list[list[float]]]:
    """Read the losses in a file. how: the options that all lines must have.

    Raises:
        InputError: the file was made with other options, or by something else.
    """
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = {Task(*(row[name] for name in Task._fields)): row["losses"] for row in rows}
        others = [f"{key} {row[key]}" for row in rows for key, value in how.items() if row[key] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not what this command writes ({error}); choose another --output") from None
    if others:
        raise InputError(f"{path}: was made with {others[0]}; give the same, or choose another --output")
    return found


def configuration(task: Task, arguments: argparse.Namespace) -> Config:
    of_task = (
        f"seed={task.seed}",
        f"model.dropout={task.dropout}",
        f"model.drop_path={task.drop_path}",
        f"stages.0.epochs={arguments.epochs}",
        f"data.root={json.dumps(str(arguments.data_root))}",
    )
    return load_config(CONFIG_ROOT / "pmt/sysu.yaml", [*SMALL, *of_task, *arguments.overrides])


def set_up() -> None:
    """Set up a training process."""
    runtime.set_up("CPU")
    work("parity.measure.dropout_trainings").use_one_thread()


def train(task: Task, arguments: argparse.Namespace) -> tuple[Task, list[list[float]]]:
    """Train with each noise, in a process after `set_up`; return the losses."""
    start = work("parity.measure.dropout_trainings").Start(configuration(task, arguments), arguments.epochs)
    return task, [start.losses(task.side, noise) for noise in range(arguments.noises)]


def lag(ours: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the mean loss is above outside's, and its standard error from the noise.

    Both [seeds, noises, epochs], of the same seeds -> [epochs] each.
    """
    difference = (ours.mean(axis=1) - outside.mean(axis=1)).mean(axis=0)
    variances = sum(losses.var(axis=1, ddof=1).sum(axis=0) / losses.shape[1] for losses in (ours, outside))
    return difference, np.sqrt(variances) / len(ours)


def table(found: Losses) -> str:
    """Format outside's mean loss by epoch, and the others' differences with standard errors."""
    lines = []
    for pair in sorted({(task.dropout, task.drop_path) for task in found}, reverse=True):
        held = {side: {task.seed: found[task] for task in found if task[:3] == (side, *pair)} for side in SIDES}
        outside = held.pop("outside")
        lines.append(f"\ndropout {pair[0]:g}, drop path {pair[1]:g}")
        if outside:
            means = np.mean(list(outside.values()), axis=(0, 1))
            lines.append(f"  {'outside':10s} {'  '.join(f'{mean:14.3f}' for mean in means)}   {len(outside)} seeds")
        for side, by_seed in held.items():
            if seeds := sorted(by_seed.keys() & outside.keys()):
                difference, error = lag(*(np.array([losses[seed] for seed in seeds]) for losses in (by_seed, outside)))
                cells = "  ".join(f"{d:+6.3f} ± {e:.3f}" for d, e in zip(difference, error, strict=True))
                lines.append(f"  {side:10s} {cells}   {len(seeds)} seeds")
    return "\n".join(lines)
