"""Parameter groups, and AdamW and SGD as PyTorch defines them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ms_vireid.config import Config, OptimizerConfig
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


def _named(groups: Sequence[ParameterGroup]) -> list[dict]:
    """Convert groups to the form that `torch.optim` takes."""
    named = []
    for group in groups:
        options = {} if group.decays else {"weight_decay": 0.0}
        named.append({"params": list(zip(group.names, group.parameters, strict=True)), **options})
    return named


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


class AdamW(GroupOptimizer, torch.optim.AdamW):
    """`torch.optim.AdamW` with this project's groups; learning rates are set before each step."""

    def __init__(self, groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float, weight_decay: float):
        self.groups = tuple(groups)
        super().__init__(_named(groups), lr=0.0, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=False)


class SGD(GroupOptimizer, torch.optim.SGD):
    """`torch.optim.SGD` with dampening 0 and this project's groups."""

    def __init__(self, groups: Sequence[ParameterGroup], momentum: float, nesterov: bool, weight_decay: float):
        self.groups = tuple(groups)
        options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "dampening": 0.0}
        super().__init__(_named(groups), lr=0.0, **options)


def build_optimizer(model: ReIDModel, config: Config) -> AdamW | SGD:
    options = config.optimizer.model_dump(exclude={"name", "lr", "backbone_factor", "clip_norm"})
    optimizer = {"adamw": AdamW, "sgd": SGD}[config.optimizer.name]
    return optimizer(parameter_groups(model, config.optimizer), **options)
