"""One training step: forward, loss terms, gradients, update."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ms_vireid.config import LossConfig, Term
from torch_ref import losses
from torch_ref.engine.optimizer import SGD, AdamW

_FEATURES = {"pooled": 1, "bnneck": 2}  # among a model's outputs


class StageLoss(nn.Module):
    """The weighted sum of a stage's terms (PMT Eqs. 11 and 12, MUN Eq. 17): losses by name, each with its weight."""

    def __init__(self, config: LossConfig, num_instances: int):
        super().__init__()
        terms = config.terms()
        self.names = tuple(terms)
        self.weights = tuple(term.weight for term in terms.values())
        self.terms = nn.ModuleList(_TERMS[name](term, num_instances) for name, term in terms.items())

    def forward(self, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
        """The model's outputs, logits [2PK, num_classes] and features [2PK, C] before and after BNNeck first, and
        labels [2PK] -> (total, each unweighted term in order)."""
        values = tuple(term(outputs, labels) for term in self.terms)
        total = 0.0
        for weight, value in zip(self.weights, values, strict=True):
            total = total + weight * value
        return (total, *values)


class OnLogits(nn.Module):
    """A loss of the logits as a term."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.loss(outputs[0], labels)


class OnFeatures(nn.Module):
    """A loss of the features as a term; `arguments` follow the labels in its call.

    feature: which ones, "pooled" (before BNNeck) or "bnneck" (after it).
    """

    def __init__(self, loss: nn.Module, feature: str, *arguments: int):
        super().__init__()
        self.loss = loss
        self.output = _FEATURES[feature]
        self.arguments = arguments

    def forward(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.loss(outputs[self.output], labels, *self.arguments)


class OnAuxiliaryLogits(nn.Module):
    """A loss of C_v(a) and C_r(a) as a term; the outputs from here on are `MUN`'s."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.loss(outputs[4], outputs[5], labels[: outputs[4].shape[0]])


class OnModalities(nn.Module):
    """A loss of the pooled features of v, r and a as a term."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        half = outputs[3].shape[0]
        return self.loss(outputs[1][:half], outputs[1][half:], outputs[3])


class OnPrototypes(nn.Module):
    """A loss of the prototypes of v, r and a as a term."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.loss(outputs[6][0], outputs[6][1], outputs[6][2])


class AuxiliaryIdentity(nn.Module):
    """L_id^a (MUN, Tables 1 and 5): the cross entropy of C_a(a), a mean."""

    def forward(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        logits = outputs[7]
        return functional.cross_entropy(logits.to(torch.float32), labels[: len(logits)].to(torch.int64))


def _pht(term: Term, num_instances: int) -> nn.Module:
    return OnFeatures(losses.ProgressiveHardTripletLoss(term.margin, term.reduction), term.feature, term.stage)


_TERMS = {
    "id": lambda term, k: OnLogits(losses.IdentityLoss()),
    "triplet": lambda term, k: OnFeatures(losses.HardTripletLoss(term.margin), term.feature),
    "pht": _pht,
    "wrt": lambda term, k: OnFeatures(losses.WeightedRegularizedTripletLoss(term.weights), term.feature),
    "hct": lambda term, k: OnFeatures(losses.HeteroCenterTripletLoss(k, term.margin), term.feature),
    "msel": lambda term, k: OnFeatures(losses.ModalitySharedEnhancementLoss(k, term.distance), term.feature),
    "dcl": lambda term, k: OnFeatures(losses.DiscriminativeCenterLoss(k, term.negatives), term.feature),
    "idc": lambda term, k: OnAuxiliaryLogits(losses.IdentityConsistencyLoss()),
    "ia": lambda term, k: OnModalities(losses.IdentityAlignmentLoss(k, term.margin, term.reduction)),
    "ma": lambda term, k: OnPrototypes(losses.ModalityAlignmentLoss(k, term.bridge)),
    "id_a": lambda term, k: AuxiliaryIdentity(),
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
