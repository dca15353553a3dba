"""Whether training with dropout and drop path goes as it does elsewhere: mean losses of a small PMT beside outside's.

Five sides train: MindSpore by its three programs, the PyTorch mirror, whose noise is the same hash, and an outside
one, timm's ViT with its own dropout and drop path and a plain step of `torch.optim.AdamW`. For each seed all begin with
the same weights and train on the same batches, several times with other noise: nothing else tells them apart, and a
hundredth of the loss is seen. Every side, pair of rates and seed is a process on one core and a line of --output, which
is not trained again.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, check_least, run
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.devices import runtime
from ms_vireid.files.writing import append_line, check_output
from parity import processes

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


@dataclass(frozen=True)
class Run:
    """dropout, drop_path: rates. seed: of weights, batches and pictures."""

    side: str
    dropout: float
    drop_path: float
    seed: int


Losses = Mapping[Run, list[list[float]]]  # of each noise, the mean of every `STEPS` steps


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE", help=", ".join(SIDES))
    parser.add_argument(
        "--rates", nargs="+", type=_pair, default=RATES, metavar="DROPOUT,PATH", help="pairs as 0.03,0.1; default: five"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="of each side and pair of rates")
    parser.add_argument("--noises", type=int, default=5, metavar="N", help="of each seed")
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help=f"of {STEPS} steps, all in grey")
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help="where the synthetic set is made")
    parser.add_argument("--output", type=Path, required=True, metavar="F", help="JSON lines, one a run")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="configuration values, of all sides")
    arguments = parser.parse_intermixed_args()
    check_least(arguments, seeds=1, noises=2, epochs=1)  # of one noise there is no standard error
    check_output(arguments.output, "--output")
    from ms_vireid.data.read import read_data

    how = {option: getattr(arguments, option) for option in ("noises", "epochs", "overrides")}
    done = read(arguments.output, how)
    read_data(configuration(Run("outside", 0.0, 0.0, 0), arguments).data)  # made before many would make it
    runs = itertools.product(arguments.sides, arguments.rates, range(arguments.seeds))
    missing = [one for side, pair, seed in runs if (one := Run(side, *pair, seed)) not in done]
    missing.sort(key=lambda one: one.seed)
    with processes.pool(len(runtime.cores()) or 1) as pool:
        for one, losses in pool.imap_unordered(partial(train, arguments=arguments), missing):
            append_line(arguments.output, json.dumps(asdict(one) | how | {"losses": losses}))
            print(one, " ".join(f"{loss:.3f}" for loss in np.mean(losses, axis=0)), flush=True)
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


def read(path: Path, how: Mapping[str, Any]) -> dict[Run, list[list[float]]]:
    """The runs of a file. how: the options that all of them must have been made with.

    Raises:
        InputError: it was written with other options, or not by this command.
    """
    if not path.exists():
        return {}
    names = [field.name for field in fields(Run)]
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = {Run(*(row[name] for name in names)): row["losses"] for row in rows}
        others = [f"{key} {row[key]}" for row in rows for key, value in how.items() if row[key] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not what this command writes ({error}); choose another --output") from None
    if others:
        raise InputError(f"{path}: was made with {others[0]}; give the same, or choose another --output")
    return found


def configuration(one: Run, arguments: argparse.Namespace) -> Config:
    own = (
        f"seed={one.seed}",
        f"model.dropout={one.dropout}",
        f"model.drop_path={one.drop_path}",
        f"stages.0.epochs={arguments.epochs}",
        f"data.root={json.dumps(str(arguments.data_root))}",
    )
    return load_config(CONFIG_ROOT / "pmt/sysu.yaml", [*SMALL, *own, *arguments.overrides])


def train(one: Run, arguments: argparse.Namespace) -> tuple[Run, list[list[float]]]:
    """In a process of its own."""
    runtime.set_up("CPU")
    import torch

    torch.set_num_threads(1)
    start = Start(configuration(one, arguments), arguments.epochs)
    return one, [start.losses(one.side, noise) for noise in range(arguments.noises)]


class Start:
    """Weights and batches from which all sides begin."""

    def __init__(self, config: Config, epochs: int):
        import torch

        from ms_vireid.data.batches import TrainingBatches
        from ms_vireid.data.read import read_data
        from parity.trajectory import TorchTraining

        self.config, self.epochs = config, epochs
        batches = TrainingBatches(read_data(config.data).train, config)
        self.batches = Kept(batches, epochs * STEPS)
        torch.manual_seed(config.seed)
        self.weights = TorchTraining(config, self.batches, 0).weights()

    def losses(self, side: str, noise: int) -> list[float]:
        """The mean of each epoch's, by one side and noise."""
        import torch

        training = _side(side)(self.config, self.batches)
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

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        return self.batches[step]


def _side(name: str) -> Callable:
    """A training by one of `SIDES`, of a configuration and batches."""
    from parity.outside import OutsideTraining
    from parity.trajectory import MindSporeTraining, TorchTraining

    if name == "outside":
        return OutsideTraining
    if name == "torch_ref":
        return lambda config, batches: TorchTraining(config, batches, 0)
    return lambda config, batches: MindSporeTraining(config, batches, 0, name)


def lag(ours: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much the mean loss is above outside's, and the standard error of that by the noise.

    Both [seeds, noises, epochs], of the same seeds -> [epochs] each.
    """
    difference = (ours.mean(axis=1) - outside.mean(axis=1)).mean(axis=0)
    variances = sum(losses.var(axis=1, ddof=1).sum(axis=0) / losses.shape[1] for losses in (ours, outside))
    return difference, np.sqrt(variances) / len(ours)


def table(found: Losses) -> str:
    """Outside's mean loss by epoch; the others' above it, with the standard error."""
    lines = []
    for pair in sorted({(one.dropout, one.drop_path) for one in found}, reverse=True):
        by_side = {
            side: {
                one.seed: losses
                for one, losses in found.items()
                if (one.side, one.dropout, one.drop_path) == (side, *pair)
            }
            for side in SIDES
        }
        outside = by_side.pop("outside")
        lines.append(f"\ndropout {pair[0]:g}, drop path {pair[1]:g}")
        if outside:
            means = np.mean(list(outside.values()), axis=(0, 1))
            lines.append(f"  {'outside':10s} {'  '.join(f'{mean:14.3f}' for mean in means)}   {len(outside)} seeds")
        for side, by_seed in by_side.items():
            seeds = sorted(by_seed.keys() & outside.keys())
            if seeds:
                difference, error = lag(*(np.array([held[seed] for seed in seeds]) for held in (by_seed, outside)))
                cells = "  ".join(f"{d:+6.3f} ± {e:.3f}" for d, e in zip(difference, error, strict=True))
                lines.append(f"  {side:10s} {cells}   {len(seeds)} seeds")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
