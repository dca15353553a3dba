"""Parameter groups, and AdamW and SGD as PyTorch defines them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_vireid import cpu_kernels
from ms_vireid.config import AdamWConfig, Config, OptimizerConfig, SGDConfig
from ms_vireid.cpu_kernels import Fused
from ms_vireid.models.auxiliary_generator import SCALE_RANGE
from ms_vireid.tensors import overwrite

STATES = ("exp_avg", "exp_avg_sq", "momentum_buffer")  # of each weight, as torch.optim calls them: STATE.WEIGHT
TINY = 1e-30  # the least eps: where nothing is updated it would be 0, and 0 / 0 is not a number
# Beginnings of the names of MUN's parameters that ImageNet weights can initialise.
MUN_BACKBONE = ("visible_stage.", "infrared_stage.", "shared.", "generator.stage.")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, `lr_factor` times the schedule's base, whether weights decay, and the
    limits, if any, that they are clamped to after each update."""

    name: str
    lr_factor: float
    parameters: tuple[Parameter, ...]
    decays: bool = True
    limits: tuple[float, float] | None = None


def pmt_groups(model: nn.Cell, config: OptimizerConfig) -> list[ParameterGroup]:
    """The paper's two groups: the patch projection and all blocks at `backbone_factor`, everything else at 1."""
    return _two_groups(model, config, lambda name: "patch_embed.proj." in name or ".blocks." in name)


def agw_groups(model: nn.Cell, config: OptimizerConfig) -> list[ParameterGroup]:
    """The release's groups: BNNeck and classifier at 1, everything else, non-local blocks included, at
    `backbone_factor`."""
    return _two_groups(model, config, lambda name: not name.startswith(("bottleneck.", "classifier.")))


def mun_groups(model: nn.Cell, config: OptimizerConfig) -> list[ParameterGroup]:
    """What ImageNet weights can initialise at `backbone_factor`, everything else at 1, layer scales without decay and
    in their range."""
    full, backbone = _two_groups(model, config, lambda name: name.startswith(MUN_BACKBONE))
    scales = tuple(p for p in full.parameters if p.name.endswith(".scale"))
    others = tuple(p for p in full.parameters if not p.name.endswith(".scale"))
    groups = [ParameterGroup("full", 1.0, others), backbone]
    return [*groups, ParameterGroup("scales", 1.0, scales, decays=False, limits=SCALE_RANGE)] if scales else groups


def _two_groups(model: nn.Cell, config: OptimizerConfig, backbone: Callable[[str], bool]) -> list[ParameterGroup]:
    parameters = model.trainable_params()
    return [
        ParameterGroup("full", 1.0, tuple(p for p in parameters if not backbone(p.name))),
        ParameterGroup("backbone", config.backbone_factor, tuple(p for p in parameters if backbone(p.name))),
    ]


def _slices(groups: Sequence[ParameterGroup]) -> tuple[tuple[int, int], ...]:
    """Where each group's weights begin and end among all."""
    ends = np.cumsum([len(group.parameters) for group in groups]).tolist()
    return tuple(zip([0, *ends], ends, strict=False))


def _state(prefix: str, weights: ParameterTuple) -> ParameterTuple:
    return ParameterTuple(
        [Parameter(ops.zeros_like(p), name=f"{prefix}.{p.name}", requires_grad=False) for p in weights]
    )


# Loops over weights stand in functions of their own, group by group: MindSpore's compiler goes a level deeper with each
# turn and comes back where the function ends, and is too deep after some hundreds.


def _where(finite: Tensor, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradients, or zeros."""
    kept = ()
    for gradient in gradients:
        kept += (ops.where(finite, gradient, 0.0),)
    return kept


def _clamp(weights: tuple[Parameter, ...], limits: tuple[float, float] | None) -> None:
    """Weights to the limits of their group. (What an update's operator returns is not the weight on a CPU.)"""
    if limits is not None:
        for weight in weights:
            overwrite(weight, ops.clamp(weight, *limits))


class AdamW(Fused):
    """AdamW with bias correction and decoupled decay (Loshchilov & Hutter 2019), the update of `torch.optim.AdamW`.

    MindSpore's fused operator has no bias correction:  w -= lr (m / (sqrt(v) + eps) + decay w). With c1 = 1 - beta1^t
    and c2 = 1 - beta2^t it computes the corrected update exactly when it is given
    lr sqrt(c2) / c1,  eps sqrt(c2)  and  decay c1 / sqrt(c2)  in place of lr, eps and decay (see `scalars`).

    Args:
        groups: each parameter in exactly one.
        betas, eps, weight_decay: as in the paper of AdamW; the decay applies to every group that `decays`.
    """

    def __init__(self, groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(auto_prefix=False)
        self.groups = tuple(groups)
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.group_of = tuple(index for index, group in enumerate(groups) for _ in group.parameters)
        self.weights = ParameterTuple([p for group in groups for p in group.parameters])
        self.exp_avg = _state("exp_avg", self.weights)
        self.exp_avg_sq = _state("exp_avg_sq", self.weights)
        self.limits = tuple(group.limits for group in groups)
        self.slices = _slices(groups)
        self.update = ops.AdamWeightDecay()
        self.beta1, self.beta2 = (Tensor(beta, ms.float32) for beta in betas)

    def state(self) -> list[Parameter]:
        """Everything a checkpoint needs besides the weights and the number of steps."""
        return [*self.exp_avg, *self.exp_avg_sq]

    @property
    def scalars_shape(self) -> tuple[int, ...]:
        return len(self.groups), 3

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
            lr, eps, decay = scalars[group][0], ops.maximum(scalars[group][1], TINY), scalars[group][2]
            self._update(group, gradients, (lr, beta1, beta2, eps, decay))
        return True

    def _update(self, group: int, gradients: tuple[Tensor, ...], scalars: tuple[Tensor, ...]) -> None:
        start, end = self.slices[group]
        for i in range(start, end):
            self.update(self.weights[i], self.exp_avg[i], self.exp_avg_sq[i], *scalars, gradients[i])
        _clamp(self.weights[start:end], self.limits[group])

    def by_kernel(self, gradients: tuple[Tensor, ...], scalars: Tensor, finite: Tensor | None = None) -> bool:
        if finite is not None and not finite.asnumpy():
            return True
        rows = scalars.asnumpy()
        for i, gradient in enumerate(gradients):
            held = self.weights[i], self.exp_avg[i], self.exp_avg_sq[i]
            cpu_kernels.adamw(
                *held, gradient, *rows[self.group_of[i]], *self.betas, limits=self.limits[self.group_of[i]]
            )
        return True


class SGD(Fused):
    """SGD with momentum, the update of `torch.optim.SGD` (dampening 0):  g += decay w,  b = momentum b + g,  and
    w -= lr (g + momentum b) with Nesterov's momentum, w -= lr b without.

    Args:
        groups: each parameter in exactly one.
        momentum, nesterov, weight_decay: the decay is added to the gradients of every group that `decays`.
    """

    def __init__(self, groups: Sequence[ParameterGroup], momentum: float, nesterov: bool, weight_decay: float):
        super().__init__(auto_prefix=False)
        self.groups = tuple(groups)
        self.group_of = tuple(index for index, group in enumerate(groups) for _ in group.parameters)
        self.weights = ParameterTuple([p for group in groups for p in group.parameters])
        self.momentum_buffer = _state("momentum_buffer", self.weights)
        self.limits = tuple(group.limits for group in groups)
        self.nesterov = nesterov
        self.momentum = Tensor(momentum, ms.float32)
        self.decaying = tuple(group.decays and weight_decay > 0 for group in groups)
        self.decays = Tensor([weight_decay if group.decays else 0.0 for group in groups], ms.float32)
        # Not `ops.SGD`, which copies every weight on a GPU, nor the Nesterov step of `ops.ApplyMomentum`, which on a
        # CPU is none: b and the step along it, then the step along the gradient.
        self.slices = _slices(groups)
        self.along_buffer = ops.ApplyMomentum()
        self.along_gradient = ops.ApplyGradientDescent()

    def state(self) -> list[Parameter]:
        """Everything a checkpoint needs besides the weights and the number of steps."""
        return list(self.momentum_buffer)

    @property
    def scalars_shape(self) -> tuple[int, ...]:
        return (len(self.groups),)

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
            decayed += (ops.addcmul(gradients[i], self.weights[i], decay),)
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

    def by_kernel(self, gradients: tuple[Tensor, ...], scalars: Tensor, finite: Tensor | None = None) -> bool:
        if finite is not None and not finite.asnumpy():
            return True
        rates, decays, momentum = (x.asnumpy() for x in (scalars, self.decays, self.momentum))
        for i, gradient in enumerate(gradients):
            group = self.group_of[i]
            how = self.nesterov, rates[group], decays[group], momentum
            cpu_kernels.sgd(self.weights[i], self.momentum_buffer[i], gradient, *how, limits=self.limits[group])
        return True


def build_optimizer(model: nn.Cell, config: Config) -> AdamW | SGD:
    """The configured optimiser of all trainable parameters, on the groups of the configured model."""
    return _OPTIMIZERS[config.optimizer.name](_GROUPS[config.model.name](model, config.optimizer), config.optimizer)


def _adamw(groups: Sequence[ParameterGroup], config: AdamWConfig) -> AdamW:
    return AdamW(groups, config.betas, config.eps, config.weight_decay)


def _sgd(groups: Sequence[ParameterGroup], config: SGDConfig) -> SGD:
    return SGD(groups, config.momentum, config.nesterov, config.weight_decay)


_GROUPS = {"pmt": pmt_groups, "agw": agw_groups, "mun": mun_groups}
_OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd}
