"""Whether training with dropout and drop path goes as it does elsewhere: mean losses of a small PMT beside outside's.

Five sides train: MindSpore by its three programs, the PyTorch mirror, whose noise is the same hash, and an outside
one, timm's ViT with its own dropout and drop path and a plain step of `torch.optim.AdamW`. For each seed all begin with
the same weights and train on the same batches, several times with other noise: nothing else tells them apart, and a
hundredth of the loss is seen. Every side, pair of rates and seed takes one core and is a line of --output, and what has
its line is not trained again.
"""

import argparse
import itertools
import json
from collections.abc import Mapping
from concurrent.futures import as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import CONFIG_ROOT
from ms_vireid.command.running import Parser, require_extra, run
from ms_vireid.devices import runtime
from ms_vireid.files.writing import append_line, check_output
from parity import processes

if TYPE_CHECKING:
    import numpy as np

    from ms_vireid.config import Config
    from parity.trajectory import Training

SIDES = ("outside", "torch_ref", "kernels", "operators", "graph")
RATES = ((0.2, 0.1), (0.2, 0.0), (0.03, 0.1), (0.03, 0.0), (0.0, 0.1))  # dropout and drop path
STEPS = 50  # that a mean is taken over
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


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE", help=", ".join(SIDES))
    parser.add_argument(
        "--rates", nargs="+", type=_pair, default=RATES, metavar="DROPOUT,PATH", help="pairs as 0.03,0.1; default: five"
    )
    parser.add_number("dropout --seeds", default=5, help="of each side and pair of rates")
    parser.add_number("dropout --noises", default=5, help="of each seed")
    parser.add_number("dropout --epochs", default=4, help=f"of {STEPS} steps, all in grey")
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help="where the synthetic set is made")
    parser.add_argument("--output", type=Path, required=True, metavar="F", help="JSON lines, one a process")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="configuration values, of all sides")
    arguments = parser.parse_intermixed_args()
    require_extra("dropout.py", "parity", "torch", "timm")
    check_output(arguments.output, reads=[arguments.data_root])
    import numpy as np

    from ms_vireid.data.read import read_data

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


def _pair(text: str) -> tuple[float, float]:
    try:
        dropout, drop_path = map(float, text.split(","))
        if not (0 <= dropout < 1 and 0 <= drop_path < 1):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not DROPOUT,PATH, both at least 0 and below 1, as 0.03,0.1"
        ) from None
    return dropout, drop_path


def read(path: Path, how: Mapping[str, Any]) -> dict[Task, list[list[float]]]:
    """The losses in a file. how: the options that all of them must have been made with.

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


def configuration(task: Task, arguments: argparse.Namespace) -> "Config":
    from ms_vireid.config import load_config

    own = (
        f"seed={task.seed}",
        f"model.dropout={task.dropout}",
        f"model.drop_path={task.drop_path}",
        f"stages.0.epochs={arguments.epochs}",
        f"data.root={json.dumps(str(arguments.data_root))}",
    )
    return load_config(CONFIG_ROOT / "pmt/sysu.yaml", [*SMALL, *own, *arguments.overrides])


def train(task: Task, arguments: argparse.Namespace) -> tuple[Task, list[list[float]]]:
    """Of each noise, in a process that `set_up` has begun."""
    start = Start(configuration(task, arguments), arguments.epochs)
    return task, [start.losses(task.side, noise) for noise in range(arguments.noises)]


def set_up() -> None:
    runtime.set_up("CPU")
    import torch

    torch.set_num_threads(1)


class Start:
    """Weights and batches from which all sides begin."""

    def __init__(self, config: "Config", epochs: int):
        import torch

        from ms_vireid.data.batches import TrainingBatches
        from ms_vireid.data.read import read_data
        from parity.trajectory import TorchTraining

        self.config, self.epochs = config, epochs
        self.batches = Kept(TrainingBatches(read_data(config.data).train, config), epochs * STEPS)
        torch.manual_seed(config.seed)
        self.weights = TorchTraining(config, self.batches, 0).weights()

    def losses(self, side: str, noise: int) -> list[float]:
        """The mean of each epoch's, by one side and noise."""
        import numpy as np
        import torch

        training = begin(side, self.config, self.batches)
        training.set_weights(self.weights)
        seed = 1000 * (1 + noise) + self.config.seed
        torch.manual_seed(seed)
        training.config = self.config.model_copy(update={"seed": seed})  # of the steps' keys
        training.advance(self.epochs * STEPS)
        return np.reshape([row["loss"] for row in training.rows], (self.epochs, -1)).mean(axis=1).tolist()


class Kept:
    """The first `count` batches, made once."""

    def __init__(self, batches, count: int):
        self.sampler, self.length = batches.sampler, len(batches)
        self.batches = [batches[step] for step in range(count)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> "tuple[np.ndarray, np.ndarray]":
        return self.batches[step]


def begin(side: str, config: "Config", batches: Kept) -> "Training":
    from parity.measure.outside import OutsideTraining
    from parity.trajectory import MindSporeTraining, TorchTraining

    if side == "outside":
        return OutsideTraining(config, batches)
    return TorchTraining(config, batches, 0) if side == "torch_ref" else MindSporeTraining(config, batches, 0, side)


def lag(ours: "np.ndarray", outside: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """By how much the mean loss is above outside's, and the standard error of that by the noise.

    Both [seeds, noises, epochs], of the same seeds -> [epochs] each.
    """
    import numpy as np

    difference = (ours.mean(axis=1) - outside.mean(axis=1)).mean(axis=0)
    variances = sum(losses.var(axis=1, ddof=1).sum(axis=0) / losses.shape[1] for losses in (ours, outside))
    return difference, np.sqrt(variances) / len(ours)


def table(found: Losses) -> str:
    """Outside's mean loss by epoch; the others' above it, with the standard error."""
    import numpy as np

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


if __name__ == "__main__":
    run(main)
