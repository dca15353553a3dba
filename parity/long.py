"""Train both frameworks from one start for hundreds of steps with dropout: how far do their losses part?

Rounding alone parts two trainings in time, sooner where more activations meet ReLU's kink. So MindSpore's distance from
PyTorch stands beside PyTorch's from itself, with each initial weight rounded once more.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.readers import read_data
from ms_vireid.programs.program import choose
from parity.cases import programs_of
from parity.compare import FORWARD, MARGIN
from parity.mapping import values
from parity.trajectory import MindSporeTraining, TorchTraining

_PEOPLE = (
    "data={name: synthetic, image_size: [64, 32], workers: 0, synthetic: {train_identities: 96, val_identities: 4, "
    "test_identities: 4, images_per_camera: 3, image_size: [64, 32]}}",
    "model.num_classes=100",
)
TRAININGS = {  # the recipes with small models, as many steps as they have
    "PMT": (
        "pmt/sysu.yaml",
        ("model.depth=3", "model.embed_dim=96", "model.num_heads=4"),
        ("stages.0.epochs=5", "stages.1.epochs=10", "train.iterations=30"),
    ),
    "MUN": (
        "mun/sysu.yaml",
        ("model.layers=[1, 2, 1, 1]", "model.width=8", "model.ratios=[2, 3]", "data.image_size=[48, 24]"),
        ("stages.0.epochs=8", "schedule.warmup_epochs=2", "schedule.milestones=[5, 7]", "train.iterations=25"),
    ),
    "AGW": (
        "agw/sysu.yaml",
        ("model.layers=[1, 2, 3, 1]", "model.width=8"),
        ("stages.0.epochs=8", "schedule.warmup_epochs=2", "schedule.milestones=[5, 7]", "train.iterations=25"),
    ),
}
ROUNDING = 2.0**-24  # of float32, relative
LAG = 5  # steps by which one of two trainings may meet a kink of ReLU before the other


@dataclass(frozen=True)
class Parting:
    """PyTorch's loss [steps], and the distances of MindSpore's loss and of PyTorch's from the rounded start."""

    loss: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray

    @property
    def passed(self) -> bool:
        """Whether at no step MindSpore has parted further than PyTorch has from itself, but for `MARGIN` and `LAG`, or
        than one step rounds; and at the first step, before any update, by rounding alone."""
        rounded = FORWARD * self.loss.max()
        so_far = np.maximum.accumulate(self.theirs)[np.minimum(np.arange(len(self.loss)) + LAG, len(self.loss) - 1)]
        return bool((self.ours <= np.maximum(MARGIN * so_far, rounded)).all() and self.ours[0] <= rounded)


def main(arguments: argparse.Namespace, described: str) -> None:
    """Print how far the losses of each training part by each program, by default the one that a training takes.

    described: this process's device, in words."""
    programs = programs_of(described, arguments.program or [str(choose("auto"))])
    names = [name for name in TRAININGS if not arguments.match or arguments.match in name]
    if not names:
        raise InputError(f"--match {arguments.match}: --long has {', '.join(TRAININGS)}; leave it out to see all")
    say(f"device: {described}", *HEAD.split("\n"))
    passed = True
    for name in names:
        for program in programs:
            parting = part(name, program)
            passed &= parting.passed
            say(*row(name, program, parting).split("\n"))
    if not passed:
        sys.exit(1)


def part(name: str, program: str) -> Parting:
    config, *overrides = TRAININGS[name]
    with tempfile.TemporaryDirectory(prefix="ms_vireid_long_") as folder:
        root = f"data.root={json.dumps(str(Path(folder) / 'people'))}"
        config = load_config(CONFIG_ROOT / config, [*_PEOPLE, root, *overrides[0], *overrides[1]])
        ms.set_seed(config.seed)  # of the weights
        batches = TrainingBatches(read_data(config.data).train, config)
        ours = MindSporeTraining(config, batches, 0, program)
        theirs, again = TorchTraining(config, batches, 0), TorchTraining(config, batches, 0)
        start = values(ours.model)
        theirs.set_weights(start)
        again.set_weights({name: _rounded(value) for name, value in start.items()})
        for training in (ours, theirs, again):
            training.advance(len(batches))
    ours, theirs, again = (np.array([row["loss"] for row in training.rows]) for training in (ours, theirs, again))
    return Parting(theirs, np.abs(ours - theirs), np.abs(again - theirs))


def _rounded(value: np.ndarray) -> np.ndarray:
    signs = np.random.default_rng(0).choice([-1.0, 1.0], value.shape)
    return (value * (1.0 + 2 * ROUNDING * signs)).astype(value.dtype)


def row(name: str, program: str, parting: Parting) -> str:
    """Under `HEAD`: the loss at the first step and on average at the last 20, and both partings, in the training's
    first half and in all of it, with the step where they are largest."""
    steps = len(parting.loss)
    begin = f"{name:5}{program:10}{steps:>6}{parting.loss[0]:>8.2f}{parting.loss[-20:].mean():>9.2f}"
    cells = [
        f"{d[: steps // 2].max():>14.1e}{d.max():>9.1e}{d.argmax() + 1:>6}" for d in (parting.ours, parting.theirs)
    ]
    return f"{begin}{''.join(cells)}  {'ok' if parting.passed else 'OVER'}"


HEAD = (
    f"{'':38}{'MindSpore from PyTorch':>29}{'PyTorch from itself':>29}\n"
    f"{'training':15}{'steps':>6}{'first':>8}{'last 20':>9}" + f"{'first half':>14}{'all':>9}{'step':>6}" * 2
)
