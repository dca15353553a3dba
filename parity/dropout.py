"""Whether training with dropout goes as it does elsewhere: the mean loss of each epoch of a small PMT, over seeds.

Five sides train on the same pictures with the same sampler and losses: MindSpore by its three programs, the PyTorch
mirror, whose dropout is the same hash, and an outside one: timm's ViT with its own dropout and drop path, torchvision's
transforms and `torch.optim.AdamW`. Every run is a process on one core, and a line of --output, which is not run again.
"""

import argparse
import itertools
import json
import multiprocessing
import os
from dataclasses import asdict, dataclass, fields
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np

from ms_vireid.command import Parser, run
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.errors import InputError
from ms_vireid.files.writing import append_line, check_output

SIDES = ("kernels", "operators", "graph", "torch_ref", "outside")
RATES = ((0.0, 0.1), (0.03, 0.1), (0.03, 0.0))  # dropout and drop path
_SMALL = (
    "data={name: synthetic, image_size: [128, 64], workers: 0, synthetic: {train_identities: 300, val_identities: 2, "
    "test_identities: 4, images_per_camera: 3}}",
    "model.embed_dim=192",
    "model.depth=6",
    "model.num_heads=6",
    "model.num_classes=302",
    "optimizer.lr=1e-3",
    "train.iterations=113",
)


@dataclass(frozen=True)
class Run:
    """dropout, drop_path: rates. seed: of weights, batches, pictures and noise."""

    side: str
    dropout: float
    drop_path: float
    seed: int


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE", help=", ".join(SIDES))
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="of each side and pair of rates")
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="of PMT's first stage, in grey")
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help="where the synthetic set is made")
    parser.add_argument("--output", type=Path, required=True, metavar="F", help="JSON lines, one a run")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="configuration values, of all sides")
    arguments = parser.parse_intermixed_args()
    for option in ("seeds", "epochs"):
        if getattr(arguments, option) < 1:
            raise InputError(f"--{option} {getattr(arguments, option)}: it must be at least 1")
    check_output(arguments.output, "--output")
    from ms_vireid.data.read import read_data

    done = read(arguments.output)
    read_data(configuration(Run("kernels", 0.0, 0.0, 0), arguments).data)  # made before many would make it
    rates = itertools.product(arguments.sides, RATES, range(arguments.seeds))
    missing = [one for side, pair, seed in rates if (one := Run(side, *pair, seed)) not in done]
    missing.sort(key=lambda one: one.seed)
    cores = sorted(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    free = spawn.Queue()
    for core in cores:
        free.put(core)
    with spawn.Pool(len(cores), _take_core, (free,), maxtasksperchild=1) as processes:
        for one, epochs in processes.imap_unordered(partial(train, arguments=arguments), missing):
            append_line(arguments.output, json.dumps(asdict(one) | epochs))
            print(one, " ".join(f"{loss:.2f}" for loss in epochs["loss"]), flush=True)
    print(table(read(arguments.output)))


def _take_core(free: multiprocessing.Queue) -> None:
    """Bind this process to a core that no other has, until it ends."""
    core = free.get()
    os.sched_setaffinity(0, {core})
    Finalize(None, free.put, (core,), exitpriority=0)


def read(path: Path) -> dict[Run, dict[str, list[float]]]:
    """What each run of a file came to: by epoch the mean loss, and how many steps had a triplet term above 2."""
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        keys = [field.name for field in fields(Run)]
        return {Run(*(row[key] for key in keys)): {key: row[key] for key in ("loss", "leaps")} for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not what this command writes ({error}); choose another --output") from None


def configuration(one: Run, arguments: argparse.Namespace) -> Config:
    own = (
        f"seed={one.seed}",
        f"model.dropout={one.dropout}",
        f"model.drop_path={one.drop_path}",
        f"stages.0.epochs={arguments.epochs}",
        f"data.root={json.dumps(str(arguments.data_root))}",
    )
    return load_config(CONFIG_ROOT / "pmt/sysu.yaml", [*_SMALL, *own, *arguments.overrides])


def train(one: Run, arguments: argparse.Namespace) -> tuple[Run, dict[str, list[float]]]:
    """In a process of its own: the epochs of the first stage."""
    from ms_vireid import runtime

    runtime.set_up("CPU")
    import mindspore as ms
    import torch

    from ms_vireid.data.batches import TrainingBatches
    from ms_vireid.data.read import read_data
    from ms_vireid.engine.programs import PROGRAMS
    from parity import trajectory

    torch.set_num_threads(1)
    torch.manual_seed(one.seed)
    ms.set_seed(one.seed)
    config = configuration(one, arguments)
    batches = TrainingBatches(read_data(config.data).train, config)
    if one.side in PROGRAMS:
        training = trajectory.MindSporeTraining(config, batches, 0, one.side)
    elif one.side == "torch_ref":
        training = trajectory.TorchTraining(config, batches, 0)
    else:
        from parity.outside import OutsidePictures, OutsideTraining

        training = OutsideTraining(config, OutsidePictures(batches, config))
    training.advance(arguments.epochs * batches.sampler.iterations)
    by_epoch = {
        name: np.array([row[name] for row in training.rows]).reshape(arguments.epochs, -1) for name in ("loss", "pht")
    }
    return one, {"loss": by_epoch["loss"].mean(axis=1).tolist(), "leaps": (by_epoch["pht"] > 2).sum(axis=1).tolist()}


def table(found: dict[Run, dict[str, list[float]]]) -> str:
    """Mean loss by epoch with its standard error over the seeds, and the steps with a leap of the triplet term."""
    lines = []
    for pair in RATES:
        lines.append(f"\ndropout {pair[0]:g}, drop path {pair[1]:g}")
        for side in SIDES:
            rows = [row for run, row in found.items() if (run.side, run.dropout, run.drop_path) == (side, *pair)]
            if rows:
                losses = np.array([row["loss"] for row in rows])
                errors = losses.std(axis=0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.zeros(losses.shape[1])
                cells = "  ".join(f"{m:6.2f} ±{e:5.2f}" for m, e in zip(losses.mean(axis=0), errors, strict=True))
                leaps = np.mean([sum(row["leaps"]) for row in rows])
                lines.append(f"  {side:10s} {len(rows):2} seeds  {cells}   leaps {leaps:.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
