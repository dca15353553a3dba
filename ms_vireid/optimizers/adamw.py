"""AdamW."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Tensor, ops

from ms_vireid.devices.replaceable import replaceable
from ms_vireid.files.weights import STATES
from ms_vireid.optimizers.groups import GroupOptimizer, ParameterGroup, Part


class Scalars(NamedTuple):
    """What an update needs of its group and step."""

    lr: float
    decay: float
    eps: float
    beta1: float
    beta2: float
    new1: float  # 1 - beta1
    new2: float  # 1 - beta2
    correction1: float  # 1 - beta1^step
    correction2: float  # 1 - beta2^step


class AdamW(GroupOptimizer):
    """AdamW with bias correction and decoupled weight decay (Loshchilov & Hutter 2019), as `torch.optim.AdamW`."""

    STATES = STATES["adamw"]

    def __init__(self, groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(groups, weight_decay)
        self.betas = betas
        self.eps = eps

    @replaceable("numba", "eager", "graph")
    def scalars(self, step: int, learning_rates: Sequence[float]) -> np.ndarray:
        """Compute `Scalars` of each group for update number `step`, from 1: float32 [groups, scalars]."""
        shared = self.eps, *self.betas, *(1.0 - beta for beta in self.betas), *(1.0 - beta**step for beta in self.betas)
        rows = [Scalars(lr, decay, *shared) for lr, decay in zip(learning_rates, self.decays, strict=True)]
        return np.array(rows, np.float32)

    @replaceable("numba", "eager", "graph", "cuda")
    def update(self, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
        s = Scalars(*scalars[part.group].unbind())
        exp_avg, exp_avg_sq = part.states
        mean = s.beta1 * exp_avg + s.new1 * gradient
        square = s.beta2 * exp_avg_sq + s.new2 * ops.square(gradient)
        step = mean / s.correction1 / (ops.sqrt(square / s.correction2) + s.eps)
        weight = part.weight - s.lr * (step + s.decay * part.weight)
        self.assign(part, weight, (mean, square), applies)
