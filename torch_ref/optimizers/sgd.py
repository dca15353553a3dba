"""SGD with momentum."""

from collections.abc import Sequence

import torch

from torch_ref.optimizers.groups import GroupOptimizer, ParameterGroup


class SGD(GroupOptimizer, torch.optim.SGD):
    """`torch.optim.SGD` with dampening 0 and this project's groups."""

    def __init__(self, groups: Sequence[ParameterGroup], momentum: float, nesterov: bool, weight_decay: float):
        self.groups = tuple(groups)
        options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "dampening": 0.0}
        super().__init__([group.options() for group in groups], lr=0.0, **options)
