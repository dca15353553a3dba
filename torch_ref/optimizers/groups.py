"""Parameter groups, and what the optimisers share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ms_vireid.config import OptimizerConfig
from torch_ref.models.base import ReIDModel


@dataclass(frozen=True)
class ParameterGroup:
    """As in ms_vireid. names: of the parameters, which do not know their own in PyTorch."""

    name: str
    lr_factor: float
    parameters: tuple[nn.Parameter, ...]
    names: tuple[str, ...]
    decays: bool = True
    limits: tuple[float, float] | None = None

    def options(self) -> dict:
        """The group as `torch.optim` takes it."""
        options = {} if self.decays else {"weight_decay": 0.0}
        return {"params": list(zip(self.names, self.parameters, strict=True)), **options}


def parameter_groups(model: ReIDModel, config: OptimizerConfig) -> list[ParameterGroup]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    backbone = {name: p for name, p in named.items() if model.in_backbone(name)}
    limited = {}
    for name, parameter in named.items():
        if limits := model.limits_of(name):
            limited.setdefault(limits, {})[name] = parameter
    full = {name: p for name, p in named.items() if name not in backbone and not model.limits_of(name)}
    groups = [
        ParameterGroup("full", 1.0, tuple(full.values()), tuple(full)),
        ParameterGroup("backbone", config.backbone_factor, tuple(backbone.values()), tuple(backbone)),
    ]
    for limits, scales in limited.items():
        parameters, names = tuple(scales.values()), tuple(scales)
        groups.append(ParameterGroup("scales", 1.0, parameters, names, decays=False, limits=limits))
    return groups


class GroupOptimizer:
    def clip(self, max_norm: float) -> None:
        """Scale all gradients in place, so that their joint norm is at most `max_norm`."""
        torch.nn.utils.clip_grad_norm_([weight for group in self.groups for weight in group.parameters], max_norm)

    def set_learning_rates(self, base_lrs: Sequence[float]) -> None:
        """Set the learning rate of each group for the following steps."""
        for group, lr in zip(self.param_groups, base_lrs, strict=True):
            group["lr"] = lr

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        loss = super().step(closure)
        for group in self.groups:
            if group.limits is not None:
                for parameter in group.parameters:
                    parameter.clamp_(*group.limits)
        return loss
