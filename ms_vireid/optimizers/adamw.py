"""AdamW."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Tensor, ops

from ms_vireid.checkpoints.weights import STATES
from ms_vireid.optimizers.groups import GroupOptimizer, ParameterGroup, Part
from ms_vireid.replaceable import replaceable


class Scalars(NamedTuple):
    """What an update needs of its group and step:  w -= lr (m / (sqrt(v) + eps) + decay w).

    The corrections of the bias are in lr, eps and decay (Kingma & Ba 2015, end of section 2).
    """

    lr: float
    decay: float
    eps: float
    beta1: float
    beta2: float


class AdamW(GroupOptimizer):
    """AdamW with bias correction and decoupled weight decay (Loshchilov & Hutter 2019), as `torch.optim.AdamW`."""

    STATES = STATES["adamw"]

    def __init__(self, groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(groups, weight_decay)
        self.betas = betas
        self.eps = eps

    def scalars(self, step: int, learning_rates: Sequence[float]) -> np.ndarray:
        """Compute `Scalars` of each group for update number `step`, from 1: float32 [groups, scalars].

        With c1 = 1 - beta1^t and c2 = 1 - beta2^t, an update with  lr sqrt(c2) / c1,  eps sqrt(c2)  and
        decay c1 / sqrt(c2)  in place of lr, eps and decay is exactly the one with corrected moments.
        """
        # An update computes 1 - beta in float32, whose rounding scales the moments; the corrections undo that.
        rounding1, rounding2 = (float(np.float32(1) - np.float32(beta)) / (1.0 - beta) for beta in self.betas)
        correction1 = rounding1 * (1.0 - self.betas[0] ** step)
        root2 = np.sqrt(rounding2 * (1.0 - self.betas[1] ** step))
        rows = [
            Scalars(lr * root2 / correction1, decay * correction1 / root2, self.eps * root2, *self.betas)
            for lr, decay in zip(learning_rates, self.decays, strict=True)
        ]
        return np.array(rows, np.float32)

    @replaceable("numba", "graph", "cuda")
    def update(self, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
        lr, decay, eps, beta1, beta2 = scalars[part.group].unbind()  # no `Scalars`: a graph would compute in float64
        mean = beta1 * part.exp_avg + (1.0 - beta1) * gradient
        square = beta2 * part.exp_avg_sq + (1.0 - beta2) * ops.square(gradient)
        weight = part.weight - lr * (mean / (ops.sqrt(square) + eps) + decay * part.weight)
        self.assign(part.weight, self.within_limits(part, weight), applies)
        self.assign(part.exp_avg, mean, applies)
        self.assign(part.exp_avg_sq, square, applies)
