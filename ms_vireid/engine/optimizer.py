"""Parameter groups, and AdamW and SGD as PyTorch defines them."""

from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, mint, nn, ops

from ms_vireid.config import Config, OptimizerConfig
from ms_vireid.files.weights import STATES
from ms_vireid.models.base import ReIDModel

TINY = 1e-30  # the least eps: where nothing is updated it would be 0, and 0 / 0 is not a number


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, `lr_factor` times the schedule's base, whether weights decay, and the
    limits, if any, that they are clamped to after each update."""

    name: str
    lr_factor: float
    parameters: tuple[Parameter, ...]
    decays: bool = True
    limits: tuple[float, float] | None = None


def parameter_groups(model: ReIDModel, config: OptimizerConfig) -> list[ParameterGroup]:
    """Each trainable parameter in one: `full` at the base rate, `backbone` at `backbone_factor` of it, and `scales`,
    where the model has some, which do not decay and keep to a range."""
    parameters = model.trainable_params()
    backbone = tuple(p for p in parameters if model.in_backbone(p.name))
    limited = {}
    for parameter in parameters:
        if limits := model.limits_of(parameter.name):
            limited.setdefault(limits, []).append(parameter)
    full = tuple(p for p in parameters if not model.in_backbone(p.name) and not model.limits_of(p.name))
    groups = [ParameterGroup("full", 1.0, full), ParameterGroup("backbone", config.backbone_factor, backbone)]
    for limits, scales in limited.items():
        groups.append(ParameterGroup("scales", 1.0, tuple(scales), decays=False, limits=limits))
    return groups


def _clamp(weights: tuple[Parameter, ...], limits: tuple[float, float] | None) -> None:
    """Weights to the limits of their group, by taking off the difference: `ops.assign` is two copies on a GPU. (What an
    update's operator returns is not the weight on a CPU.)"""
    if limits is not None:
        for weight in weights:
            ops.assign_sub(weight, weight - ops.clamp(weight, *limits))


# Loops over weights stand in functions of their own, group by group: MindSpore's compiler goes a level deeper with each
# turn and comes back where the function ends, and is too deep after some hundreds.


def _where(finite: Tensor, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradients, or zeros."""
    kept = ()
    for gradient in gradients:
        kept += (ops.where(finite, gradient, 0.0),)
    return kept


class _OnGroups(nn.Cell):
    """An optimiser of parameter groups, each parameter in exactly one. Its state is NAME.WEIGHT for each weight
    and each name in `states`."""

    def __init__(self, groups: Sequence[ParameterGroup], states: tuple[str, ...]):
        super().__init__(auto_prefix=False)
        self.groups = tuple(groups)
        self.weights = ParameterTuple([p for group in groups for p in group.parameters])
        self.limits = tuple(group.limits for group in groups)
        ends = np.cumsum([len(group.parameters) for group in groups]).tolist()
        self.slices = tuple(zip([0, *ends], ends, strict=False))  # where each group's weights begin and end among all
        self.states = states
        for name in states:
            zeros = [Parameter(ops.zeros_like(p), name=f"{name}.{p.name}", requires_grad=False) for p in self.weights]
            setattr(self, name, ParameterTuple(zeros))

    def state(self) -> list[Parameter]:
        """Everything a checkpoint needs besides the weights and the number of steps."""
        return [parameter for name in self.states for parameter in getattr(self, name)]


class AdamW(_OnGroups):
    """AdamW with bias correction and decoupled decay (Loshchilov & Hutter 2019), the update of `torch.optim.AdamW`.

    MindSpore's fused operator has no bias correction:  w -= lr (m / (sqrt(v) + eps) + decay w). With c1 = 1 - beta1^t
    and c2 = 1 - beta2^t it computes the corrected update exactly when it is given
    lr sqrt(c2) / c1,  eps sqrt(c2)  and  decay c1 / sqrt(c2)  in place of lr, eps and decay (see `scalars`).
    """

    def __init__(self, groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(groups, STATES["adamw"])
        self.replacements = {"kernels": _adamw_by_kernels}  # PMT's step takes 1.04 times as long without
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.update = ops.AdamWeightDecay()
        self.beta1, self.beta2 = (Tensor(beta, ms.float32) for beta in betas)

    def scalars(self, step: int, base_lrs: Sequence[float]) -> np.ndarray:
        """What `construct` needs for update number `step` (from 1): float32 [groups, 3] of lr, eps and decay."""
        # The operator takes 1 - beta in float32; its moments are that much off, and the corrections undo it.
        rounding1, rounding2 = (float(np.float32(1) - np.float32(beta)) / (1.0 - beta) for beta in self.betas)
        correction1 = rounding1 * (1.0 - self.betas[0] ** step)
        root2 = np.sqrt(rounding2 * (1.0 - self.betas[1] ** step))
        decays = [self.weight_decay * correction1 / root2 if group.decays else 0.0 for group in self.groups]
        rows = [(lr * root2 / correction1, self.eps * root2, d) for lr, d in zip(base_lrs, decays, strict=True)]
        return np.array(rows, np.float32)

    def construct(self, gradients: tuple[Tensor, ...], scalars: Tensor, finite: Tensor | None = None) -> bool:
        """Update all weights in place; gradients in the order of `weights`. `finite`, a boolean scalar, leaves weights
        and moments as they are where it is false: by arithmetic, as a GPU would have to be waited for to branch."""
        beta1, beta2 = self.beta1, self.beta2
        if finite is not None:
            scalars = ops.where(finite, scalars, 0.0)
            beta1, beta2 = ops.where(finite, beta1, 1.0), ops.where(finite, beta2, 1.0)
            gradients = _where(finite, gradients)
        for group in range(len(self.slices)):
            row = scalars[group]
            lr, eps, decay = row[0], ops.clamp(row[1], TINY), row[2]
            self._update(group, gradients, (lr, beta1, beta2, eps, decay))
        return True

    def _update(self, group: int, gradients: tuple[Tensor, ...], scalars: tuple[Tensor, ...]) -> None:
        start, end = self.slices[group]
        for i in range(start, end):
            self.update(self.weights[i], self.exp_avg[i], self.exp_avg_sq[i], *scalars, gradients[i])
        _clamp(self.weights[start:end], self.limits[group])


class SGD(_OnGroups):
    """SGD with momentum, the update of `torch.optim.SGD` (dampening 0):  g += decay w,  b = momentum b + g,  and
    w -= lr (g + momentum b) with Nesterov's momentum, w -= lr b without.
    """

    def __init__(self, groups: Sequence[ParameterGroup], momentum: float, nesterov: bool, weight_decay: float):
        super().__init__(groups, STATES["sgd"])
        self.replacements = {"kernels": _sgd_by_kernels}  # AGW's step takes 1.15 times as long without
        self.nesterov = nesterov
        self.momentum = Tensor(momentum, ms.float32)
        self.decaying = tuple(group.decays and weight_decay > 0 for group in groups)
        self.decays = Tensor([weight_decay if group.decays else 0.0 for group in groups], ms.float32)
        # b and the step along it, then the step along the gradient. Not `ops.SGD`, which copies every weight on a GPU,
        # nor the Nesterov step of `ops.ApplyMomentum`, which is not Nesterov's on a CPU.
        self.on_ascend = ms.get_context("device_target") == "Ascend"  # which compiles the older addcmul for each shape
        self.one = Tensor(1.0, ms.float32)
        self.along_buffer = ops.ApplyMomentum()
        self.along_gradient = ops.ApplyGradientDescent()

    def scalars(self, step: int, base_lrs: Sequence[float]) -> np.ndarray:
        """What `construct` needs: float32 [groups], the learning rates; they do not depend on the step."""
        return np.array(base_lrs, np.float32)

    def construct(self, gradients: tuple[Tensor, ...], scalars: Tensor, finite: Tensor | None = None) -> bool:
        """Update all weights in place; gradients in the order of `weights`; `finite` as `AdamW` has it."""
        momentum, decays = self.momentum, self.decays
        if finite is not None:
            scalars, decays = ops.where(finite, scalars, 0.0), ops.where(finite, decays, 0.0)
            momentum = ops.where(finite, momentum, 1.0)
            gradients = _where(finite, gradients)
        decayed = ()
        for group in range(len(self.slices)):
            decayed += self._decayed(group, gradients, decays[group])
        for group in range(len(self.slices)):
            self._step_along_buffer(group, decayed, scalars[group], momentum)
        # In loops of their own: MindSpore makes one operator of all of `ApplyMomentum` on a GPU.
        for group in range(len(self.slices)):
            if self.nesterov:
                self._step_along_gradient(group, decayed, scalars[group])
            start, end = self.slices[group]
            _clamp(self.weights[start:end], self.limits[group])
        return True

    def _decayed(self, group: int, gradients: tuple[Tensor, ...], decay: Tensor) -> tuple[Tensor, ...]:
        start, end = self.slices[group]
        if not self.decaying[group]:
            return gradients[start:end]
        decayed = ()
        for i in range(start, end):
            if self.on_ascend:
                decayed += (mint.addcmul(gradients[i], self.weights[i], decay),)
            else:
                decayed += (ops.addcmul(gradients[i], self.weights[i], decay, self.one),)
        return decayed

    def _step_along_buffer(self, group: int, gradients: tuple[Tensor, ...], lr: Tensor, momentum: Tensor) -> None:
        start, end = self.slices[group]
        lr = lr * momentum if self.nesterov else lr
        for i in range(start, end):
            self.along_buffer(self.weights[i], self.momentum_buffer[i], lr, gradients[i], momentum)

    def _step_along_gradient(self, group: int, gradients: tuple[Tensor, ...], lr: Tensor) -> None:
        start, end = self.slices[group]
        for i in range(start, end):
            self.along_gradient(self.weights[i], lr, gradients[i])


def _adamw_by_kernels(self: AdamW, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
    from ms_vireid.programs.kernels import optimizer

    for (start, end), (lr, eps, decay), limits in zip(self.slices, scalars.asnumpy(), self.limits, strict=True):
        row = lr, *self.betas, max(eps, TINY), decay
        for i in range(start, end):
            optimizer.adamw(self.weights[i], self.exp_avg[i], self.exp_avg_sq[i], gradients[i], *row)
        optimizer.clamp(self.weights[start:end], limits)
    return True


def _sgd_by_kernels(self: SGD, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
    from ms_vireid.programs.kernels import optimizer

    rates, decays, momentum = (x.asnumpy() for x in (scalars, self.decays, self.momentum))
    for (start, end), lr, decay, limits in zip(self.slices, rates, decays, self.limits, strict=True):
        for i in range(start, end):
            held = self.weights[i], self.momentum_buffer[i]
            optimizer.sgd(*held, gradients[i], self.nesterov, lr, decay, momentum)
        optimizer.clamp(self.weights[start:end], limits)
    return True


def build_optimizer(model: ReIDModel, config: Config) -> AdamW | SGD:
    """The configured optimiser of all trainable parameters."""
    options = config.optimizer.model_dump(exclude={"name", "lr", "backbone_factor"})
    optimizer = {"adamw": AdamW, "sgd": SGD}[config.optimizer.name]
    return optimizer(parameter_groups(model, config.optimizer), **options)
