"""Parameter groups, and AdamW and SGD as PyTorch defines them."""

from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_vireid.config import Config, OptimizerConfig
from ms_vireid.files.weights import STATES
from ms_vireid.models.base import ReIDModel


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with one rate, `lr_factor` times the schedule's; updates clamp them to `limits`, if there are any."""

    name: str
    lr_factor: float
    parameters: tuple[Parameter, ...]
    decays: bool = True
    limits: tuple[float, float] | None = None


def parameter_groups(model: ReIDModel, config: OptimizerConfig) -> list[ParameterGroup]:
    """Assign each trainable parameter to one group: `full` at the schedule's rate, `backbone` at `backbone_factor` of
    it, and `scales`, if the model has any, which are clamped and do not decay."""
    full, backbone, limited = [], [], {}
    for parameter in model.trainable_params():
        if limits := model.limits_of(parameter.name):
            limited.setdefault(limits, []).append(parameter)
        else:
            (backbone if model.in_backbone(parameter.name) else full).append(parameter)
    groups = [ParameterGroup("full", 1.0, tuple(full))]
    groups += [ParameterGroup("backbone", config.backbone_factor, tuple(backbone))]
    groups += [ParameterGroup("scales", 1.0, tuple(scales), False, limits) for limits, scales in limited.items()]
    return groups


class GroupOptimizer(nn.Cell):
    """An optimiser of parameter groups, each parameter in exactly one.

    Call: gradients in the order of `weights`; scalars as `scalars` gives them for this step.
    """

    STATES: tuple[str, ...]  # the state of a weight is STATE.WEIGHT
    UNCHANGED: tuple[float, ...]  # scalars with which a gradient of 0 changes neither weight nor state
    NORM_EPS = 1e-6  # added to the norm of the gradients, as in `clip_grad_norm_`

    def __init__(self, groups: Sequence[ParameterGroup], weight_decay: float):
        super().__init__(auto_prefix=False)
        self.groups = tuple(groups)
        self.group_of = tuple(i for i, group in enumerate(groups) for _ in group.parameters)
        self.decays = tuple(weight_decay if group.decays else 0.0 for group in groups)
        self.limits = tuple(group.limits for group in groups)
        self.weights = ParameterTuple([p for group in groups for p in group.parameters])
        for name in self.STATES:
            zeros = [Parameter(ops.zeros_like(p), name=f"{name}.{p.name}", requires_grad=False) for p in self.weights]
            setattr(self, name, ParameterTuple(zeros))
        self.unchanged = Tensor(self.UNCHANGED, ms.float32)
        self._state = [parameter for name in self.STATES for parameter in getattr(self, name)]

    def construct(self, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
        for i, weight in enumerate(self.weights):
            group = self.group_of[i]
            self.update(i, gradients[i], scalars[group])
            if self.limits[group] is not None:
                self.clamp(weight, self.limits[group])
        return True

    def clamp(self, weight: Parameter, limits: tuple[float, float]) -> None:
        ops.assign(weight, weight.clamp(*limits))

    def clip(self, gradients: tuple[Tensor, ...], max_norm: float) -> tuple[Tensor, ...]:
        """Scale all gradients so that their joint norm is at most `max_norm`, as `torch.nn.utils.clip_grad_norm_`."""
        squares = sum([ops.square(gradient).sum() for gradient in gradients])
        share = (max_norm / (ops.sqrt(squares) + self.NORM_EPS)).clamp(max=1.0)
        return tuple([gradient * share for gradient in gradients])

    def only_if(self, finite: Tensor, gradients: tuple[Tensor, ...], scalars: Tensor) -> tuple:
        """If `finite`, a boolean scalar, is false, return what changes nothing; a branch would wait for the device."""
        masked = tuple([ops.where(finite, gradient, 0.0) for gradient in gradients])
        return masked, ops.where(finite, scalars, self.unchanged)

    def state(self) -> list[Parameter]:
        """Return what a checkpoint needs besides the weights and the number of steps."""
        return self._state


class AdamW(GroupOptimizer):
    """AdamW with bias correction and decoupled weight decay (Loshchilov & Hutter 2019), as `torch.optim.AdamW`."""

    STATES = STATES["adamw"]
    UNCHANGED = (0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0)

    def __init__(self, groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(groups, weight_decay)
        self.betas = betas
        self.eps = eps

    def scalars(self, step: int, learning_rates: Sequence[float]) -> np.ndarray:
        """Compute the scalars of update number `step`, from 1: float32 [groups, 9]."""
        shared = self.eps, *self.betas, *(1.0 - beta for beta in self.betas), *(1.0 - beta**step for beta in self.betas)
        rows = [(lr, decay, *shared) for lr, decay in zip(learning_rates, self.decays, strict=True)]
        return np.array(rows, np.float32)

    def update(self, i: int, gradient: Tensor, scalars: Tensor) -> None:
        lr, decay, eps, beta1, beta2, new1, new2, correction1, correction2 = scalars.unbind()
        weight, exp_avg, exp_avg_sq = self.weights[i], self.exp_avg[i], self.exp_avg_sq[i]
        mean = beta1 * exp_avg + new1 * gradient
        square = beta2 * exp_avg_sq + new2 * ops.square(gradient)
        step = mean / correction1 / (ops.sqrt(square / correction2) + eps)
        ops.assign(exp_avg, mean)
        ops.assign(exp_avg_sq, square)
        ops.assign(weight, weight - lr * (step + decay * weight))


class SGD(GroupOptimizer):
    """SGD with momentum, Nesterov's or plain, as `torch.optim.SGD` with dampening 0."""

    STATES = STATES["sgd"]
    UNCHANGED = (0.0, 0.0, 1.0)

    def __init__(self, groups: Sequence[ParameterGroup], momentum: float, nesterov: bool, weight_decay: float):
        super().__init__(groups, weight_decay)
        self.momentum = momentum
        self.nesterov = nesterov

    def scalars(self, step: int, learning_rates: Sequence[float]) -> np.ndarray:
        """Compute the scalars of an update, the same for all steps: float32 [groups, 3]."""
        rows = [(lr, decay, self.momentum) for lr, decay in zip(learning_rates, self.decays, strict=True)]
        return np.array(rows, np.float32)

    def update(self, i: int, gradient: Tensor, scalars: Tensor) -> None:
        lr, decay, momentum = scalars.unbind()
        weight = self.weights[i]
        gradient = gradient + decay * weight
        buffer = momentum * self.momentum_buffer[i] + gradient
        ops.assign(self.momentum_buffer[i], buffer)
        ops.assign(weight, weight - lr * (gradient + momentum * buffer if self.nesterov else buffer))


def build_optimizer(model: ReIDModel, config: Config) -> AdamW | SGD:
    """Build the configured optimiser of all trainable parameters."""
    options = config.optimizer.model_dump(exclude={"name", "lr", "backbone_factor", "clip_norm"})
    return {"adamw": AdamW, "sgd": SGD}[config.optimizer.name](parameter_groups(model, config.optimizer), **options)
