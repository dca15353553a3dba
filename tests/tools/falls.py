"""What helps a small ViT that is about to fall over: remedies, each from ten states on the edge.

    python -m tests.tools.falls --output F [--remedies NAME ...] [--seeds N] [--steps N] [key.sub=value ...]

PyTorch's mirror trains a PMT of width 96 from a state as the ladder's training that falls over has it (parity/fall.py),
on pictures of which one in sixteen is flat and dark, about as dark as the edge. A training has fallen where its log
would note that the loss jumped. Each remedy and seed is a line of --output, and what has its line is not trained again.
docs/evidence/trainings.md has the table.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.engine.log import Jumps
from ms_vireid.files.writing import append_line
from parity.fall import CALM, NOISE, GrayBatches, normalised, on_the_edge, remember_calm_steps
from parity.trajectory import TorchTraining

CALM_BEGIN = 6  # steps without flat pictures
FLAT = 1 / 16  # of the pictures after them
DARK = 5.0, 60.0  # their mean, of 255
FIRST = 6  # steps, whose loss is not among the largest
LAST = 20  # steps, of whose loss the mean is printed
NORM_EPS = "LayerNorm's eps"  # no key of the configuration
REMEDIES = {
    "none": "",
    "clip at 20": "optimizer.clip_norm=20",
    "clip at 5": "optimizer.clip_norm=5",
    "clip at 1": "optimizer.clip_norm=1",
    "three times the warm-up": "schedule.warmup_epochs=6",
    "half the rate": "optimizer.lr=3e-3",
    "AdamW's eps 1e-6": "optimizer.eps=1e-6",
    "AdamW's eps 1e-4": "optimizer.eps=1e-4",
    "betas[1] 0.99": "optimizer.betas=[0.9, 0.99]",
    "betas[1] 0.95": "optimizer.betas=[0.9, 0.95]",
    **{f"{NORM_EPS} {eps}": "" for eps in ("1e-6", "1e-3")},
}
PMT = (
    "data={name: synthetic, image_size: [64, 32], workers: 0}",
    "model={name: pmt, embed_dim: 96, depth: 3, num_heads: 4, num_classes: 12}",
    "stages.0.epochs=20",
    "optimizer.lr=6e-3",
    "schedule.warmup_epochs=2",
    "train={num_identities: 4, num_instances: 3, iterations: 25}",
)


class PartlyFlat(GrayBatches):
    """Batches of which some pictures are flat, each about as dark as the edge."""

    def __init__(self, config: Config):
        super().__init__(config, falls=None)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = super().__getitem__(step)
        draw = np.random.default_rng([self.config.seed, step])
        chosen = np.flatnonzero(draw.random(len(images)) < (FLAT if step >= CALM_BEGIN else 0.0))
        gray = draw.uniform(*DARK, (len(chosen), 1, 1, 1))
        images[chosen] = normalised(gray + draw.normal(0.0, NOISE, (len(chosen), 1, *images.shape[2:])))
        return images, labels


def configuration(remedy: str, seed: int, arguments: argparse.Namespace) -> Config:
    changes = [REMEDIES[remedy]] if REMEDIES[remedy] else []
    return load_config(CONFIG_ROOT / "pmt/sysu.yaml", [*PMT, f"seed={seed}", *arguments.overrides, *changes])


def train(remedy: str, config: Config, steps: int) -> list[float]:
    """Return the loss of each step."""
    torch.manual_seed(config.seed)
    training = TorchTraining(config, PartlyFlat(config), first=-CALM)
    training.model.load_state_dict(training.model.state_dict() | on_the_edge(training.model.state_dict()))
    training.done = CALM
    remember_calm_steps(training.optimizer)
    if remedy.startswith(NORM_EPS):
        for module in training.model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = float(remedy.removeprefix(NORM_EPS))
    training.advance(steps)
    return [round(row["loss"], 3) for row in training.rows]


def falls(losses: Sequence[float]) -> list[int]:
    """Return the steps, from 1, at which a training has fallen."""
    jumps = Jumps()
    return [step for step, loss in enumerate(losses, 1) if jumps.times(loss)]


def table(rows: Sequence[dict]) -> str:
    """Format one line for each remedy: how many trainings fell, the largest loss, and the last ones' mean."""
    lines = [f"{'':<22}{'runs':>5}{'fallen':>7}{'falls':>6}{'largest loss':>13}{'last loss':>15}  first at step"]
    for remedy in dict.fromkeys(row["remedy"] for row in rows):
        runs = [row["losses"] for row in rows if row["remedy"] == remedy]
        steps = [falls(run) for run in runs]
        last = [float(np.mean(run[-LAST:])) for run in runs]
        spread = f"{np.mean(last):.2f} ± {np.std(last, ddof=1) if len(last) > 1 else 0:.2f}"
        begin = " ".join(map(str, sorted(found[0] for found in steps if found))) or "-"
        cells = f"{len(runs):>5}{sum(map(bool, steps)):>7}{sum(map(len, steps)):>6}"
        lines.append(f"{remedy:<22}{cells}{max(max(run[FIRST:]) for run in runs):>13.1f}{spread:>15}  {begin}")
    return "\n".join(lines)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="F", help="JSON lines, one a training")
    parser.add_argument("--remedies", nargs="+", choices=REMEDIES, default=list(REMEDIES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=10, metavar="N")
    parser.add_argument("--steps", type=int, default=100, metavar="N")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    done = {(row["remedy"], row["seed"]) for row in read(arguments.output)}
    wanted = [(remedy, seed) for seed in range(arguments.seeds) for remedy in arguments.remedies]
    for remedy, seed in wanted:
        if (remedy, seed) not in done:
            losses = train(remedy, configuration(remedy, seed, arguments), arguments.steps)
            append_line(arguments.output, json.dumps({"remedy": remedy, "seed": seed, "losses": losses}))
            print(f"{remedy:<24}{seed:>3}{np.mean(losses[-LAST:]):>8.2f}", *falls(losses), flush=True)
    print(table(read(arguments.output)))


if __name__ == "__main__":
    main()
