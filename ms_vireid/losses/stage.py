"""The loss of a training's stage: a weighted sum of terms."""

import numpy as np
from mindspore import Tensor, nn

from ms_vireid import losses
from ms_vireid.config import LossConfig, Term
from ms_vireid.models.base import TrainingOutputs
from ms_vireid.models.layers import l2_normalise
from ms_vireid.replaceable import replaceable


class StageLoss(nn.Cell):
    """The weighted sum of a stage's loss terms (PMT Eqs. 11 and 12, MUN Eq. 17).

    num_instances: K. parts: of a batch, PK rows each.
    """

    def __init__(self, config: LossConfig, num_instances: int, parts: int = 2):
        super().__init__()
        terms = config.terms()
        self.names = ("loss", *terms)
        self.weights = tuple(term.weight for term in terms.values())
        self.terms = nn.CellList([OnOutputs(term, num_instances, parts) for term in terms.values()])

    @replaceable("numba", "graph")
    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
        """A model's `TrainingOutputs` and the labels of all rows -> (total, each unweighted term in order)."""
        values = self.values(outputs, labels)
        return self.total(values), *values

    def values(self, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
        return tuple([term(outputs, labels) for term in self.terms])

    @replaceable("graph", "cuda")
    def total(self, values: tuple[Tensor, ...]) -> Tensor:
        return sum([w * value for w, value in zip(self.weights, values)])  # noqa: B905 (graph mode does not know strict=)

    def named(self, values: np.ndarray) -> dict[str, float]:
        """Name the values that `construct` returned."""
        return dict(zip(self.names, map(float, values), strict=True))


class OnOutputs(nn.Cell):
    """A loss term: calls a loss with some of `TrainingOutputs` and the labels of as many rows."""

    def __init__(self, term: Term, num_instances: int, parts: int):
        super().__init__()
        self.loss = term.build(losses, num_instances, parts)
        self.normalised = term.of_unit_rows
        self.places = tuple(TrainingOutputs._fields.index(field) for field in term.outputs)
        self.labelled = term.labelled
        self.further = term.further

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        inputs = tuple([outputs[place] for place in self.places])
        if self.normalised:
            inputs = tuple([l2_normalise(rows) for rows in inputs])
        if self.labelled:
            rows = inputs[0].shape[0]
            inputs += (labels if rows == len(labels) else labels[:rows],)
        return self.loss(*inputs, *self.further)
