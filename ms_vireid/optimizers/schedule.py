"""Learning rates as plain numbers, without a framework."""

import math
from collections.abc import Sequence
from typing import Any

from ms_vireid.config import Config


def learning_rates(config: Config, groups: Sequence[Any], epoch: int, done: float = 0.0) -> list[float]:
    """Return the learning rate of each parameter group in a 1-based epoch; its base is `lr_factor` times
    `optimizer.lr`.

    groups: of either framework. done: fraction of the epoch's iterations done, for `iteration_steps`. Raises ValueError
    for an epoch outside the run.
    """
    if not 1 <= epoch <= config.epochs:
        raise ValueError(f"epoch must be in 1..{config.epochs}, got {epoch}")
    options = config.schedule.model_dump(exclude={"name"})
    schedule = _SCHEDULES[config.schedule.name]
    time = epoch - 1 + done if schedule is iteration_steps else epoch
    return [schedule(time, config.optimizer.lr * group.lr_factor, config.epochs, **options) for group in groups]


def warmup_cosine(
    epoch: int, base_lr: float, epochs: int, warmup_epochs: int, start_lr: float, floor_lr: float
) -> float:
    """Return the learning rate of a 1-based epoch (PMT): linear warm-up from `start_lr` before epoch `warmup_epochs`,
    then a cosine down to `floor_lr` at the last epoch. The cosine starts at epoch 0, so it has already fallen a little
    when it takes over."""
    if epoch < warmup_epochs:
        return start_lr + (base_lr - start_lr) * epoch / warmup_epochs
    return floor_lr + (base_lr - floor_lr) * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))


def warmup_steps(
    epoch: int, base_lr: float, epochs: int, warmup_epochs: int, milestones: Sequence[int], factor: float
) -> float:
    """Return the learning rate of a 1-based epoch (AGW): linear warm-up to `base_lr` in epoch `warmup_epochs`, then
    times `factor` for each milestone passed. A milestone is a number of completed epochs: 20 lowers the rate from epoch
    21 on, which the release, counting from 0, calls epoch 20."""
    if epoch <= warmup_epochs:
        return base_lr * epoch / warmup_epochs
    return base_lr * factor ** sum(epoch > milestone for milestone in milestones)


def iteration_steps(
    time: float,
    base_lr: float,
    epochs: int,
    warmup_epochs: int,
    start_lr: float,
    milestones: Sequence[int],
    factor: float,
) -> float:
    """Return the learning rate at a time in epochs, 0 before the first iteration (MUN): warm-up from `start_lr` to
    `base_lr`, linear in iterations, then times `factor` for each milestone reached. A milestone is a number of
    completed epochs: 30 lowers the rate from epoch 31 on, as in PyTorch's MultiStepLR. The paper says "at the 30th and
    60th epochs"."""
    if time < warmup_epochs:
        return start_lr + (base_lr - start_lr) * time / warmup_epochs
    return base_lr * factor ** sum(time >= milestone for milestone in milestones)


_SCHEDULES = {"warmup_cosine": warmup_cosine, "warmup_steps": warmup_steps, "iteration_steps": iteration_steps}
