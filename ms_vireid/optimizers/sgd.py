"""SGD with momentum."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Tensor

from ms_vireid.checkpoints.weights import STATES
from ms_vireid.optimizers.groups import GroupOptimizer, ParameterGroup, Part
from ms_vireid.replaceable import replaceable


class Scalars(NamedTuple):
    """What an update needs of its group."""

    lr: float
    decay: float
    momentum: float


class SGD(GroupOptimizer):
    """SGD with momentum, Nesterov's or plain, as `torch.optim.SGD` with dampening 0."""

    STATES = STATES["sgd"]

    def __init__(self, groups: Sequence[ParameterGroup], momentum: float, nesterov: bool, weight_decay: float):
        super().__init__(groups, weight_decay)
        self.momentum = momentum
        self.nesterov = nesterov

    def scalars(self, step: int, learning_rates: Sequence[float]) -> np.ndarray:
        """Compute `Scalars` of each group, the same for all steps: float32 [groups, scalars]."""
        rows = [Scalars(lr, decay, self.momentum) for lr, decay in zip(learning_rates, self.decays, strict=True)]
        return np.array(rows, np.float32)

    @replaceable("numba", "graph", "cuda")
    def update(self, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
        lr, decay, momentum = scalars[part.group].unbind()  # no `Scalars`: a graph would compute in float64
        gradient = gradient + decay * part.weight
        buffer = momentum * part.momentum_buffer + gradient
        weight = part.weight - lr * (gradient + momentum * buffer if self.nesterov else buffer)
        self.assign(part.weight, self.within_limits(part, weight), applies)
        self.assign(part.momentum_buffer, buffer, applies)
