"""The loss of a training's stage: a weighted sum of terms."""

from collections.abc import Sequence

from torch import Tensor, nn

from ms_vireid.config import LossConfig, Term
from torch_ref import losses
from torch_ref.models.base import TrainingOutputs
from torch_ref.models.layers import l2_normalise


class StageLoss(nn.Module):
    def __init__(self, config: LossConfig, num_instances: int, parts: int = 2):
        super().__init__()
        terms = config.terms()
        self.names = ("loss", *terms)
        self.weights = tuple(term.weight for term in terms.values())
        self.terms = nn.ModuleList(OnOutputs(term, num_instances, parts) for term in terms.values())

    def forward(self, outputs: TrainingOutputs, labels: Tensor) -> tuple[Tensor, ...]:
        """A model's `TrainingOutputs` and the labels of all rows -> (total, each unweighted term in order)."""
        values = self.values(outputs, labels)
        return self.total(values), *values

    def values(self, outputs: TrainingOutputs, labels: Tensor) -> tuple[Tensor, ...]:
        return tuple(term(outputs, labels) for term in self.terms)

    def total(self, values: tuple[Tensor, ...]) -> Tensor:
        total = 0.0
        for weight, value in zip(self.weights, values, strict=True):
            total = total + weight * value
        return total

    def named(self, values: Sequence[Tensor]) -> dict[str, float]:
        """Name the values that `forward` returned."""
        return dict(zip(self.names, map(float, values), strict=True))


class OnOutputs(nn.Module):
    def __init__(self, term: Term, num_instances: int, parts: int):
        super().__init__()
        self.loss = term.build(losses, num_instances, parts)
        self.normalised = term.of_unit_rows
        self.fields = term.outputs
        self.labelled = term.labelled
        self.further = term.further

    def forward(self, outputs: TrainingOutputs, labels: Tensor) -> Tensor:
        inputs = [getattr(outputs, field) for field in self.fields]
        if self.normalised:
            inputs = list(map(l2_normalise, inputs))
        if self.labelled:
            inputs.append(labels[: len(inputs[0])])
        return self.loss(*inputs, *self.further)
