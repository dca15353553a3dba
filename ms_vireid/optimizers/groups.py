"""Parameter groups, and what the optimisers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_vireid.config import OptimizerConfig
from ms_vireid.models.base import ReIDModel
from ms_vireid.replaceable import replaceable


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


class Part(nn.Cell):
    """What one update changes: a weight, its states, and the number of its group. Backends may lay several parameters
    of a group out in one buffer, which is the weight then.

    Each state is an attribute of a cell: in a graph, a parameter of any other object, or from a tuple, is a constant.
    """

    def __init__(self, weight: Parameter, states: Mapping[str, Parameter], group: int):
        super().__init__(auto_prefix=False)
        self.weight = weight
        self.states = ParameterTuple(states.values())
        self.group = group
        for name, state in states.items():
            setattr(self, name, state)


class GroupOptimizer(nn.Cell):
    """An optimiser of parameter groups, each parameter in exactly one.

    Call: parts, the gradients of their weights, scalars as `scalars` gives them for this step, and a boolean scalar,
    without which the update is skipped.
    """

    STATES: tuple[str, ...]  # the state of a weight is STATE.WEIGHT
    NORM_EPS = 1e-6  # added to the norm of the gradients, as in `clip_grad_norm_`

    def __init__(self, groups: Sequence[ParameterGroup], weight_decay: float):
        super().__init__(auto_prefix=False)
        self.groups = tuple(groups)
        self.decays = tuple(weight_decay if group.decays else 0.0 for group in groups)
        self.limits = tuple(group.limits for group in groups)
        self.parts = tuple(
            Part(weight, {name: self._zeros(name, weight) for name in self.STATES}, number)
            for number, group in enumerate(groups)
            for weight in group.parameters
        )
        self.weights = ParameterTuple([part.weight for part in self.parts])

    @staticmethod
    def _zeros(name: str, weight: Parameter) -> Parameter:
        return Parameter(ops.zeros_like(weight), name=f"{name}.{weight.name}", requires_grad=False)

    def construct(
        self, parts: tuple[Part, ...], gradients: tuple[Tensor, ...], scalars: Tensor, applies: Tensor | None = None
    ) -> bool:
        for i in range(len(parts)):
            self.update(parts[i], gradients[i], scalars, applies)
        return True

    def within_limits(self, part: Part, weight: Tensor) -> Tensor:
        """A new weight within its group's limits."""
        limits = self.limits[part.group]
        return weight if limits is None else weight.clamp(*limits)

    def assign(self, parameter: Parameter, value: Tensor, applies: Tensor | None) -> None:
        """Write a new value; if `applies` is false, nothing."""
        ops.assign(parameter, value if applies is None else ops.where(applies, value, parameter))

    @replaceable("numba")
    def clip(self, gradients: tuple[Tensor, ...], max_norm: float) -> tuple[Tensor, ...]:
        """Scale all gradients so that their joint norm is at most `max_norm`, as `torch.nn.utils.clip_grad_norm_`."""
        squares = sum([ops.square(gradient).sum() for gradient in gradients])
        share = (max_norm / (ops.sqrt(squares) + self.NORM_EPS)).clamp(max=1.0)
        return tuple([gradient * share for gradient in gradients])

    def state(self) -> list[Parameter]:
        """Return what a checkpoint needs besides the weights and the number of steps."""
        return [state for states in zip(*(part.states for part in self.parts), strict=True) for state in states]
