"""What each training step is given: its stage, learning rates and random key. Imports no framework."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ms_vireid.config import Config, StageConfig
from ms_vireid.data.randomness import step_key
from ms_vireid.optimizers.schedule import learning_rates


class Planned(NamedTuple):
    """One step. epoch: from 1. rates: the learning rate of each parameter group. progress: from 0 at the run's first
    step to 1 at its last. key: for the step's random numbers, 32 bits."""

    epoch: int
    stage: StageConfig
    rates: list[float]
    progress: float
    key: np.int32


def every(step: int, n: int) -> bool:
    """Whether a step is one of every n; none is if n is 0."""
    return n > 0 and step % n == 0


class Plan:
    """All steps of a run, which follow from its configuration alone.

    groups: parameter groups of either framework. iterations: steps per epoch.
    """

    def __init__(self, config: Config, groups: Sequence[Any], iterations: int):
        self.config = config
        self.groups = groups
        self.iterations = iterations
        self.steps = config.epochs * iterations

    def __call__(self, step: int) -> Planned:
        """Plan a step, counted from 0."""
        epoch, done = 1 + step // self.iterations, step % self.iterations / self.iterations
        return Planned(
            epoch,
            self.config.stage_of(epoch),
            learning_rates(self.config, self.groups, epoch, done),
            self.config.model.progress(step, self.steps, self.iterations),
            step_key(self.config.seed, step),
        )
