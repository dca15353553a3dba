"""SGD with momentum."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Tensor

from ms_vireid.devices.replaceable import replaceable
from ms_vireid.files.weights import STATES
from ms_vireid.optimizers.groups import GroupOptimizer, ParameterGroup, Part


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

    @replaceable("numba", "eager", "graph", "cuda")
    def update(self, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
        s = Scalars(*scalars[part.group].unbind())
        (buffer,) = part.states
        gradient = gradient + s.decay * part.weight
        buffer = s.momentum * buffer + gradient
        weight = part.weight - s.lr * (gradient + s.momentum * buffer if self.nesterov else buffer)
        self.assign(part, weight, (buffer,), applies)
