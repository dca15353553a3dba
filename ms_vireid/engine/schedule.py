"""Learning rates as plain numbers, without a framework."""

import math


def warmup_cosine(
    epoch: int, base_lr: float, epochs: int, warmup_epochs: int, start_lr: float, floor_lr: float
) -> float:
    """Learning rate of a 1-based epoch (PMT): linear warm-up from `start_lr`, then a cosine over the whole run.

    The warm-up covers the epochs before `warmup_epochs`; the cosine counts from epoch 0, so it has already begun to
    fall when it takes over, and reaches `floor_lr` at the last epoch. Both ends are absolute learning rates.

    Raises:
        ValueError: epoch outside 1..epochs.
    """
    if not 1 <= epoch <= epochs:
        raise ValueError(f"epoch must be in 1..{epochs}, got {epoch}")
    if epoch < warmup_epochs:
        return start_lr + (base_lr - start_lr) * epoch / warmup_epochs
    return floor_lr + (base_lr - floor_lr) * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))
