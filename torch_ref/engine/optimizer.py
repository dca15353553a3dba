"""Parameter groups and AdamW as PyTorch defines it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ms_vireid.config import OptimizerConfig


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate: `lr_factor` times the schedule's base.

    PyTorch's parameters do not know their names as MindSpore's do: `names` has them, in the same order.
    """

    name: str
    lr_factor: float
    parameters: tuple[nn.Parameter, ...]
    names: tuple[str, ...]


def pmt_groups(model: nn.Module, config: OptimizerConfig) -> list[ParameterGroup]:
    """The paper's two groups: the patch projection and all blocks at `backbone_factor`, everything else at 1."""
    backbone = lambda name: "patch_embed.proj." in name or ".blocks." in name  # noqa: E731
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    full = {name: p for name, p in named.items() if not backbone(name)}
    slow = {name: p for name, p in named.items() if backbone(name)}
    return [
        ParameterGroup("full", 1.0, tuple(full.values()), tuple(full)),
        ParameterGroup("backbone", config.backbone_factor, tuple(slow.values()), tuple(slow)),
    ]


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` itself, on the project's groups; its learning rates are set before each step.

    Args:
        groups: each parameter in exactly one.
        betas, eps, weight_decay: as in the paper of AdamW; the decay applies to every parameter.
    """

    def __init__(self, groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float, weight_decay: float):
        self.groups = tuple(groups)
        named = [{"params": list(zip(group.names, group.parameters, strict=True))} for group in groups]
        super().__init__(named, lr=0.0, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=False)

    def set_learning_rates(self, base_lrs: Sequence[float]) -> None:
        """The learning rate of each group, in their order, for the steps that follow."""
        for group, lr in zip(self.param_groups, base_lrs, strict=True):
            group["lr"] = lr
