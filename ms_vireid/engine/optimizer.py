"""Parameter groups, and AdamW and SGD as PyTorch defines them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, mint, nn, ops

from ms_vireid.config import Config, OptimizerConfig
from ms_vireid.files.weights import STATES
from ms_vireid.models.base import ReIDModel
from ms_vireid.programs.flat import Flat

BESIDE_NORM = 1e-6  # that PyTorch adds to the norm of the gradients, which may be 0
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


class _OnGroups(nn.Cell):
    """An optimiser of parameter groups, each parameter in exactly one. Its state is NAME.WEIGHT for each weight
    and each name in `states`.

    Its own code updates what `lay_out` has made of them; the CPU's kernels update weight by weight. clip_norm: the
    largest norm of all gradients together; None: there is no limit.
    """

    def __init__(self, groups: Sequence[ParameterGroup], states: tuple[str, ...], clip_norm: float | None):
        super().__init__(auto_prefix=False)
        self.groups = tuple(groups)
        self.clip_norm = clip_norm
        self.limit, self.beside_norm, self.one = (Tensor(x, ms.float32) for x in (clip_norm or 0.0, BESIDE_NORM, 1.0))
        self.weights = ParameterTuple([p for group in groups for p in group.parameters])
        self.limits = tuple(group.limits for group in groups)
        self.states = states
        self.flats: tuple[Flat, ...] = ()  # of weights, once they are laid out
        for name in states:
            zeros = [Parameter(ops.zeros_like(p), name=f"{name}.{p.name}", requires_grad=False) for p in self.weights]
            setattr(self, name, ParameterTuple(zeros))

    def lay_out(self, apart: Collection[str] = ()) -> None:
        """Have a group's weights and their states lie one behind the other, those whose names are in `apart` by
        themselves, so that one launch updates them all. Only the first call does; it may change the order of `weights`.
        """
        if self.flats:
            return
        parts = []  # of each group one or two: group and places of its weights
        places = {p.name: i for i, p in enumerate(self.weights)}
        for number, group in enumerate(self.groups):
            for side in (False, True):
                part = [places[p.name] for p in group.parameters if (p.name in apart) == side]
                parts += [(number, part)] if part else []
        self.flat_groups = tuple(number for number, _ in parts)
        self.ends = tuple(np.cumsum([len(part) for _, part in parts]).tolist())
        self.starts = (0, *self.ends[:-1])
        for name in ("weights", *self.states):
            held = getattr(self, name)
            flats = [Flat(f"{name}.{i}", [held[place] for place in part]) for i, (_, part) in enumerate(parts)]
            setattr(self, name, ParameterTuple([held[place] for _, part in parts for place in part]))
            setattr(self, f"whole_{name}", ParameterTuple([flat.whole for flat in flats]))
            self.flats = self.flats or tuple(flats)

    def joined(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients in the order of `weights` as what `construct` takes: float32, one of each flat where there are."""
        if not self.flats:
            return gradients
        joined = ()
        for i in range(len(self.flats)):
            joined += (self.flats[i].joined(gradients[self.starts[i] : self.ends[i]]).astype(ms.float32),)
        return joined

    def clipped(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients, as `joined` gives them, scaled down to `clip_norm` as `torch.nn.utils.clip_grad_norm_` does:
        g min(1, clip_norm / (|all g| + 1e-6)). Where the norm is below the limit the factor is 1: nothing has to be
        known on the host."""
        if self.clip_norm is None:
            return gradients
        squares = ops.square(gradients[0]).sum()
        for gradient in gradients[1:]:
            squares = squares + ops.square(gradient).sum()
        share = ops.minimum(self.limit / (ops.sqrt(squares) + self.beside_norm), self.one)
        kept = ()
        for gradient in gradients:
            kept += (gradient * share,)
        return kept

    def share_by_kernels(self, gradients: Sequence[Tensor]) -> float:
        """The factor of `clipped` for the CPU's kernels."""
        if self.clip_norm is None:
            return 1.0
        from ms_vireid.programs.kernels import optimizer

        share = self.clip_norm / (optimizer.norm(gradients) + BESIDE_NORM)
        return 1.0 if share > 1.0 else share  # which may not be a number, and then no weight is, as in PyTorch

    def clamp(self) -> None:
        """Weights to the limits of their group, by taking off the difference: `ops.assign` is two copies on a GPU.
        (What an update's operator returns is not the weight on a CPU.)"""
        for i in range(len(self.flat_groups)):
            limits, weight = self.limits[self.flat_groups[i]], self.whole_weights[i]
            if limits is not None:
                ops.assign_sub(weight, weight - ops.clamp(weight, *limits))

    def state(self) -> list[Parameter]:
        """Everything a checkpoint needs besides the weights and the number of steps."""
        return [parameter for name in self.states for parameter in getattr(self, name)]


def _where(finite: Tensor, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradients, or zeros."""
    kept = ()
    for gradient in gradients:
        kept += (ops.where(finite, gradient, 0.0),)
    return kept


class AdamW(_OnGroups):
    """AdamW with bias correction and decoupled decay (Loshchilov & Hutter 2019), the update of `torch.optim.AdamW`.

    MindSpore's fused operator has no bias correction:  w -= lr (m / (sqrt(v) + eps) + decay w). With c1 = 1 - beta1^t
    and c2 = 1 - beta2^t it computes the corrected update exactly when it is given
    lr sqrt(c2) / c1,  eps sqrt(c2)  and  decay c1 / sqrt(c2)  in place of lr, eps and decay (see `scalars`).
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        clip_norm: float | None = None,
    ):
        super().__init__(groups, STATES["adamw"], clip_norm)
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
        """Update all weights in place; gradients as `joined` gives them. `finite`, a boolean scalar, leaves weights
        and moments as they are where it is false: by arithmetic, as a GPU would have to be waited for to branch."""
        gradients = self.clipped(gradients)
        beta1, beta2 = self.beta1, self.beta2
        if finite is not None:
            scalars = ops.where(finite, scalars, 0.0)
            beta1, beta2 = ops.where(finite, beta1, 1.0), ops.where(finite, beta2, 1.0)
            gradients = _where(finite, gradients)
        numbers = scalars.reshape(-1)
        for i in range(len(self.flat_groups)):
            row = 3 * self.flat_groups[i]
            lr, eps, decay = numbers[row], numbers[row + 1], numbers[row + 2]
            if finite is not None:
                eps = ops.clamp(eps, TINY)
            held = self.whole_weights[i], self.whole_exp_avg[i], self.whole_exp_avg_sq[i]
            self.update(*held, lr, beta1, beta2, eps, decay, gradients[i])
        self.clamp()
        return True


class SGD(_OnGroups):
    """SGD with momentum, the update of `torch.optim.SGD` (dampening 0):  g += decay w,  b = momentum b + g,  and
    w -= lr (g + momentum b) with Nesterov's momentum, w -= lr b without.
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        clip_norm: float | None = None,
    ):
        super().__init__(groups, STATES["sgd"], clip_norm)
        self.replacements = {"kernels": _sgd_by_kernels}  # AGW's step takes 1.15 times as long without
        self.nesterov = nesterov
        self.momentum = Tensor(momentum, ms.float32)
        self.decaying = tuple(group.decays and weight_decay > 0 for group in groups)
        self.decays = tuple(Tensor(weight_decay if group.decays else 0.0, ms.float32) for group in groups)
        # b and the step along it, not by `ops.SGD`, which copies every weight on a GPU. The Nesterov step of
        # `ops.ApplyMomentum` is not Nesterov's on a CPU, nor on a GPU, where MindSpore makes one operator of several:
        # they take a second one, along the gradient.
        target = ms.get_context("device_target")
        self.on_ascend = target == "Ascend"  # which compiles the older addcmul for each shape
        self.in_two_steps = nesterov and not self.on_ascend
        self.along_buffer = ops.ApplyMomentum(use_nesterov=nesterov and not self.in_two_steps)
        self.along_gradient = ops.ApplyGradientDescent()

    def scalars(self, step: int, base_lrs: Sequence[float]) -> np.ndarray:
        """What `construct` needs: float32 [groups], the learning rates; they do not depend on the step."""
        return np.array(base_lrs, np.float32)

    def construct(self, gradients: tuple[Tensor, ...], scalars: Tensor, finite: Tensor | None = None) -> bool:
        """Update all weights in place; gradients as `joined` gives them; `finite` as `AdamW` has it."""
        gradients = self.clipped(gradients)
        momentum = self.momentum
        if finite is not None:
            scalars = ops.where(finite, scalars, 0.0)
            momentum = ops.where(finite, momentum, 1.0)
            gradients = _where(finite, gradients)
        decayed = ()
        for i in range(len(self.flat_groups)):
            decayed += (self._decayed(self.flat_groups[i], gradients[i], self.whole_weights[i], finite),)
        for i in range(len(self.flat_groups)):
            lr = scalars[self.flat_groups[i]]
            lr = lr * momentum if self.in_two_steps else lr
            self.along_buffer(self.whole_weights[i], self.whole_momentum_buffer[i], lr, decayed[i], momentum)
        # In a loop of its own: MindSpore makes one operator of all of `ApplyMomentum` on a GPU.
        if self.in_two_steps:
            for i in range(len(self.flat_groups)):
                self.along_gradient(self.whole_weights[i], scalars[self.flat_groups[i]], decayed[i])
        self.clamp()
        return True

    def _decayed(self, group: int, gradient: Tensor, weight: Parameter, finite: Tensor | None) -> Tensor:
        if not self.decaying[group]:
            return gradient
        decay = self.decays[group] if finite is None else ops.where(finite, self.decays[group], 0.0)
        if self.on_ascend:
            return mint.addcmul(gradient, weight, decay)
        return ops.addcmul(gradient, weight, decay, self.one)


def _adamw_by_kernels(self: AdamW, gradients: tuple[Tensor, ...], scalars: Tensor, _finite: None = None) -> bool:
    from ms_vireid.programs.kernels import optimizer

    share = self.share_by_kernels(gradients)
    held = zip(self.weights, self.exp_avg, self.exp_avg_sq, gradients, strict=True)
    for group, (lr, eps, decay) in zip(self.groups, scalars.asnumpy(), strict=True):
        for own in islice(held, len(group.parameters)):
            optimizer.adamw(*own, share, lr, *self.betas, max(eps, TINY), decay)
        optimizer.clamp(group.parameters, group.limits)
    return True


def _sgd_by_kernels(self: SGD, gradients: tuple[Tensor, ...], scalars: Tensor, _finite: None = None) -> bool:
    from ms_vireid.programs.kernels import optimizer

    share = self.share_by_kernels(gradients)
    decays = [decay.asnumpy() for decay in self.decays]
    rates, momentum = scalars.asnumpy(), self.momentum.asnumpy()
    held = zip(self.weights, self.momentum_buffer, gradients, strict=True)
    for group, lr, decay in zip(self.groups, rates, decays, strict=True):
        for own in islice(held, len(group.parameters)):
            optimizer.sgd(*own, self.nesterov, share, lr, decay, momentum)
        optimizer.clamp(group.parameters, group.limits)
    return True


def build_optimizer(model: ReIDModel, config: Config) -> AdamW | SGD:
    """The configured optimiser of all trainable parameters."""
    options = config.optimizer.model_dump(exclude={"name", "lr", "backbone_factor"})
    optimizer = {"adamw": AdamW, "sgd": SGD}[config.optimizer.name]
    return optimizer(parameter_groups(model, config.optimizer), **options)
