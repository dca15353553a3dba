"""One training step: forward, loss terms, gradients, update."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ms_vireid.config import LossConfig, Term
from torch_ref import losses
from torch_ref.engine.optimizer import SGD, AdamW
from torch_ref.models.base import TrainingOutputs


class StageLoss(nn.Module):
    """The weighted sum of a stage's terms (PMT Eqs. 11 and 12, MUN Eq. 17): losses by name, each with its weight."""

    def __init__(self, config: LossConfig, num_instances: int):
        super().__init__()
        terms = config.terms()
        self.names = tuple(terms)
        self.weights = tuple(term.weight for term in terms.values())
        self.terms = nn.ModuleList(_TERMS[name](term, num_instances) for name, term in terms.items())

    def forward(self, outputs: TrainingOutputs, labels: Tensor) -> tuple[Tensor, ...]:
        """The model's outputs and labels [2PK] -> (total, each unweighted term in order)."""
        values = tuple(term(outputs, labels) for term in self.terms)
        total = 0.0
        for weight, value in zip(self.weights, values, strict=True):
            total = total + weight * value
        return (total, *values)


class OnOutputs(nn.Module):
    """A loss of some of `TrainingOutputs` as a term.

    Args:
        loss: called with the outputs that `fields` names, then, with `labelled`, as many labels as these have rows,
            then `arguments`.
    """

    def __init__(self, loss: nn.Module, *fields: str, labelled: bool = True, arguments: tuple[int, ...] = ()):
        super().__init__()
        self.loss = loss
        self.fields = fields
        self.labelled = labelled
        self.arguments = arguments

    def forward(self, outputs: TrainingOutputs, labels: Tensor) -> Tensor:
        given = [getattr(outputs, field) for field in self.fields]
        if self.labelled:
            given.append(labels[: len(given[0])])
        return self.loss(*given, *self.arguments)


class AuxiliaryIdentity(nn.Module):
    """L_id^a (MUN, Tables 1 and 5): the cross entropy of C_a(a), a mean."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits.to(torch.float32), labels.to(torch.int64))


def _pht(term: Term, num_instances: int) -> nn.Module:
    loss = losses.ProgressiveHardTripletLoss(term.margin, term.reduction)
    return OnOutputs(loss, term.feature, arguments=(term.stage,))


def _ia(term: Term, num_instances: int) -> nn.Module:
    loss = losses.IdentityAlignmentLoss(num_instances, term.margin, term.reduction)
    return OnOutputs(loss, "visible", "infrared", "auxiliary", labelled=False)


def _ma(term: Term, num_instances: int) -> nn.Module:
    fields = "visible_prototypes", "infrared_prototypes", "auxiliary_prototypes"
    return OnOutputs(losses.ModalityAlignmentLoss(num_instances, term.bridge), *fields, labelled=False)


_TERMS = {
    "id": lambda term, k: OnOutputs(losses.IdentityLoss(), "logits"),
    "triplet": lambda term, k: OnOutputs(losses.HardTripletLoss(term.margin), term.feature),
    "pht": _pht,
    "wrt": lambda term, k: OnOutputs(losses.WeightedRegularizedTripletLoss(term.weights), term.feature),
    "hct": lambda term, k: OnOutputs(losses.HeteroCenterTripletLoss(k, term.margin), term.feature),
    "msel": lambda term, k: OnOutputs(losses.ModalitySharedEnhancementLoss(k, term.distance), term.feature),
    "dcl": lambda term, k: OnOutputs(losses.DiscriminativeCenterLoss(k, term.negatives), term.feature),
    "idc": lambda term, k: OnOutputs(losses.IdentityConsistencyLoss(), "visible_logits", "infrared_logits"),
    "ia": _ia,
    "ma": _ma,
    "id_a": lambda term, k: OnOutputs(AuxiliaryIdentity(), "auxiliary_logits"),
}


class TrainStep:
    """Runs steps of one stage.

    Args:
        model: called as `model(images, None, key, labels, progress)` in training mode.
        loss: the stage's terms. optimizer: holds the trainable weights.
    """

    def __init__(self, model: nn.Module, loss: StageLoss, optimizer: AdamW | SGD):
        self.names = ("loss", *loss.names)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer

    def __call__(
        self, images: Tensor, labels: Tensor, key: Tensor, progress: float, learning_rates: Sequence[float]
    ) -> dict[str, float]:
        """images [2PK, 3, H, W], labels [2PK], key int32 scalar, progress 0 at the run's first step and 1 at its last,
        learning rates of the optimizer's groups; the terms by name, `loss` being their weighted sum."""
        values = self.loss(self.model(images, None, key, labels, progress), labels)
        self.optimizer.zero_grad()
        values[0].backward()
        for group in self.optimizer.groups:
            for weight in group.parameters:
                if weight.grad is None:  # of a weight that no term uses; MindSpore's gradient is 0, and its update made
                    weight.grad = torch.zeros_like(weight)
        self.optimizer.set_learning_rates(learning_rates)
        self.optimizer.step()
        return {name: value.item() for name, value in zip(self.names, values, strict=True)}
