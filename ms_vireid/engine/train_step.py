"""One training step: forward, loss terms, gradients, update."""

from collections.abc import Callable

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.amp import DynamicLossScaler

from ms_vireid import losses
from ms_vireid.config import LossConfig, Term
from ms_vireid.engine.optimizer import SGD, AdamW
from ms_vireid.models.base import TrainingOutputs
from ms_vireid.models.layers import l2_normalise
from ms_vireid.programs.program import Program, Step

Gradients = tuple[Tensor, ...]


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

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
        """A model's `TrainingOutputs` and the labels of all rows -> (total, each unweighted term in order)."""
        values = self.values(outputs, labels)
        return self.total(values), *values

    def values(self, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
        return tuple([term(outputs, labels) for term in self.terms])

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


def loss_scaler(amp: str | bool) -> DynamicLossScaler | None:
    """Make a loss scaler for "float16", in which small gradients would become 0: halved after an overflow, doubled
    after 2000 steps without. PyTorch's initial 65,536 cost a small PMT its first two steps; at 1024 none overflowed."""
    return DynamicLossScaler(scale_value=1024.0, scale_factor=2, scale_window=2000) if amp == "float16" else None


def build_step(
    model: nn.Cell,
    loss: StageLoss,
    optimizer: AdamW | SGD,
    program: Program,
    clip_norm: float | None = None,
    scaler: DynamicLossScaler | None = None,
    gradient_mean: Callable[[Gradients], Gradients] | None = None,
    announce: bool = False,
) -> Step:
    """Build a stage's step, as `Program.step` returns it. Load weights first: the program may move them.

    Args:
        program: computes model, loss and update.
        clip_norm: limit for the joint norm of all gradients.
        scaler: for float16. A step whose gradients overflow updates nothing.
        gradient_mean: averages gradients over all devices.
    """
    program.prepare(model, loss, optimizer)

    def forward(images, labels, key, progress):
        terms = loss(model(images, None, key, labels, progress), labels)
        return (scaler.scale(terms[0]), *terms) if scaler is not None else terms

    gradients_of = program.gradients(forward, optimizer)

    def update(images, labels, key, progress, scalars):
        terms, gradients = gradients_of(images, labels, key, progress)
        if scaler is not None:
            terms, gradients = terms[1:], scaler.unscale(gradients)
        if gradient_mean is not None:
            gradients = gradient_mean(gradients)  # one device's overflow reaches all
        if clip_norm is not None:
            gradients = optimizer.clip(gradients, clip_norm)
        if scaler is not None:
            finite = all_finite(gradients)
            scaler.adjust(finite)
            gradients, scalars = optimizer.only_if(finite, gradients, scalars)
        optimizer(gradients, scalars)
        return terms

    return program.step(update, announce)


def all_finite(gradients: Gradients) -> Tensor:
    """Return a boolean scalar: whether the sum of each tensor is finite."""
    sums = [gradient.sum().reshape(1) for gradient in gradients]
    return ops.isfinite(ops.cat(sums)).all()
