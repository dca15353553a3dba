"""Whether a small ViT that is trained from scratch loses what it has learned when a tenth of its pictures are flat and
dark, by whose code, and whether clipped gradients help.

    python -m tests.falls --data-root DIR --output F [--sides SIDE ...] [--clips NORM ...] [--seeds N] [--steps N]

Each side begins with its own initial values: "outside" is timm's ViT with its own dropout and a plain step of PyTorch's
AdamW. Pictures of 128x64, width 192, 6 blocks, P = 8, K = 4, a rate of 1e-3, and PMT's two stages in 16 epochs. A run
has fallen where a training would note that its loss jumped. Every side, norm (0: none) and seed takes one core and is a
line of --output, and what has its line is not trained again. docs/evidence/trainings.md has the tables.
"""

import argparse
import itertools
import json
from concurrent.futures import as_completed
from pathlib import Path

import numpy as np

from ms_vireid.command.names import CONFIG_ROOT
from ms_vireid.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ms_vireid.devices import runtime
from ms_vireid.files.writing import append_line
from parity import processes
from parity.measure.dropout_runs import set_up

MEAN, STD = (pixel[:, None, None] for pixel in (IMAGENET_MEAN, IMAGENET_STD))
SIDES = ("outside", "torch_ref", "kernels")
FLAT = 0.1  # of the pictures
DARK = 8.0  # their mean, of 255
NOISE = 2.0  # their deviation
FIRST = 20  # steps, whose loss is not among the largest
LAST = 50  # steps, of whose loss the mean is printed
PMT = (
    "data={name: synthetic, image_size: [128, 64], workers: 0, synthetic: {train_identities: 200, val_identities: 2, "
    "test_identities: 4, images_per_camera: 3, image_size: [128, 64]}}",
    "model={name: pmt, embed_dim: 192, depth: 6, num_heads: 6, num_classes: 202}",
    "optimizer.lr=1e-3",
    "train={num_identities: 8, num_instances: 4, iterations: 40}",
    "stages.0.epochs=6",
    "stages.1.epochs=10",
)


class PartlyFlat:
    """Batches of which a tenth of the pictures, drawn from the step, are flat and dark."""

    def __init__(self, batches, config):
        self.batches, self.sampler, self.seed = batches, batches.sampler, config.seed
        self.flat = (DARK / 255 - MEAN) / STD, NOISE / 255 / STD

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, step):
        images, labels = self.batches[step]
        draw = np.random.default_rng([self.seed, step])
        chosen = np.flatnonzero(draw.random(len(images)) < FLAT)
        noise = draw.standard_normal((len(chosen), *images.shape[1:]), np.float32)
        images[chosen] = self.flat[0] + self.flat[1] * noise
        return images, labels


def configuration(clip, seed, arguments):
    from ms_vireid.config import load_config

    root = f"data.root={json.dumps(str(arguments.data_root))}"
    own = (f"seed={seed}", f"optimizer.clip_norm={clip or 'null'}", root)
    return load_config(CONFIG_ROOT / "pmt/sysu.yaml", [*PMT, *own, *arguments.overrides])


def train(side, clip, seed, arguments):
    """The loss of each step."""
    import torch

    from ms_vireid.data.batches import TrainingBatches
    from ms_vireid.data.read import read_data
    from parity.measure.dropout_trainings import begin

    config = configuration(clip, seed, arguments)
    torch.manual_seed(seed)
    training = begin(side, config, PartlyFlat(TrainingBatches(read_data(config.data).train, config), config))
    training.advance(arguments.steps)
    return (side, clip, seed), [round(row["loss"], 3) for row in training.rows]


def falls(losses):
    """The steps, from 1, at which a run has fallen."""
    from ms_vireid.engine.log import Jumps

    jumps = Jumps()
    return [step for step, loss in enumerate(losses, 1) if jumps.times(loss)]


def table(rows):
    lines = [f"{'':<10} {'clip':>5} {'runs':>5} {'fallen':>7} {'largest loss':>13} {'last loss':>16}  first at step"]
    for side, clip in sorted({(row["side"], row["clip"]) for row in rows}):
        losses = [row["losses"] for row in rows if (row["side"], row["clip"]) == (side, clip)]
        steps = [found[0] for run in losses if (found := falls(run))]
        last = [float(np.mean(run[-LAST:])) for run in losses]
        largest = max(max(run[FIRST:]) for run in losses)
        spread = f"{np.mean(last):.2f} ± {np.std(last, ddof=1) if len(last) > 1 else 0:.2f}"
        where = " ".join(map(str, sorted(steps))) or "-"
        lines.append(f"{side:<10} {clip:>5g} {len(losses):>5} {len(steps):>7} {largest:>13.1f} {spread:>16}  {where}")
    return "\n".join(lines)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help="where the synthetic set is made")
    parser.add_argument("--output", type=Path, required=True, metavar="F", help="JSON lines, one a run")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE")
    parser.add_argument("--clips", nargs="+", type=float, default=(0.0,), metavar="NORM")
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("--steps", type=int, default=600, metavar="N")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")
    arguments = parser.parse_intermixed_args()
    from ms_vireid.data.read import read_data

    read_data(configuration(0.0, 0, arguments).data)  # made before many would make it
    done = {(row["side"], row["clip"], row["seed"]) for row in read(arguments.output)}
    wanted = [
        (*kind, seed) for seed in range(arguments.seeds) for kind in itertools.product(arguments.sides, arguments.clips)
    ]
    with processes.executor(len(runtime.cores()) or 1, set_up) as others:
        for made in as_completed(others.submit(train, *one, arguments) for one in wanted if one not in done):
            (side, clip, seed), losses = made.result()
            append_line(arguments.output, json.dumps({"side": side, "clip": clip, "seed": seed, "losses": losses}))
            print(side, clip, seed, f"{np.mean(losses[-LAST:]):.2f}", falls(losses), flush=True)
    print(table(read(arguments.output)))


if __name__ == "__main__":
    main()
