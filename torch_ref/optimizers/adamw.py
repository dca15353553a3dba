"""AdamW."""

from collections.abc import Sequence

import torch

from torch_ref.optimizers.groups import GroupOptimizer, ParameterGroup


class AdamW(GroupOptimizer, torch.optim.AdamW):
    """`torch.optim.AdamW` with this project's groups; learning rates are set before each step."""

    def __init__(self, groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float, weight_decay: float):
        self.groups = tuple(groups)
        super().__init__(
            [group.options() for group in groups],
            lr=0.0,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=False,
        )
