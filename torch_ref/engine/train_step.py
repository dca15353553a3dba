"""One training step: forward, loss terms, gradients, update."""

from collections.abc import Sequence

from torch import Tensor, nn

from ms_vireid.config import LossConfig, Term
from torch_ref import losses
from torch_ref.engine.optimizer import SGD, AdamW


class StageLoss(nn.Module):
    """The weighted sum of a stage's terms (PMT Eqs. 11 and 12): a list of losses by name, each with its weight."""

    def __init__(self, config: LossConfig, num_instances: int):
        super().__init__()
        terms = config.terms()
        self.names = tuple(terms)
        self.weights = tuple(term.weight for term in terms.values())
        self.terms = nn.ModuleList(_TERMS[name](term, num_instances) for name, term in terms.items())

    def forward(self, logits: Tensor, features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """logits [2PK, num_classes], features [2PK, C], labels [2PK] -> (total, each unweighted term in order)."""
        values = tuple(term(logits, features, labels) for term in self.terms)
        total = 0.0
        for weight, value in zip(self.weights, values, strict=True):
            total = total + weight * value
        return (total, *values)


class OnLogits(nn.Module):
    """A loss of the logits as a term."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return self.loss(logits, labels)


class OnFeatures(nn.Module):
    """A loss of the features as a term; `arguments` follow the labels in its call."""

    def __init__(self, loss: nn.Module, *arguments: int):
        super().__init__()
        self.loss = loss
        self.arguments = arguments

    def forward(self, logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return self.loss(features, labels, *self.arguments)


def _pht(term: Term, num_instances: int) -> nn.Module:
    return OnFeatures(losses.ProgressiveHardTripletLoss(term.margin, term.reduction), term.stage)


_TERMS = {
    "id": lambda term, k: OnLogits(losses.IdentityLoss()),
    "triplet": lambda term, k: OnFeatures(losses.HardTripletLoss(term.margin)),
    "pht": _pht,
    "wrt": lambda term, k: OnFeatures(losses.WeightedRegularizedTripletLoss()),
    "hct": lambda term, k: OnFeatures(losses.HeteroCenterTripletLoss(k, term.margin)),
    "msel": lambda term, k: OnFeatures(losses.ModalitySharedEnhancementLoss(k, term.distance)),
    "dcl": lambda term, k: OnFeatures(losses.DiscriminativeCenterLoss(k, term.negatives)),
}


class TrainStep:
    """Runs steps of one stage.

    Args:
        model: called as `model(images, None, key)` in training mode.
        loss: the stage's terms. optimizer: holds the trainable weights.
    """

    def __init__(self, model: nn.Module, loss: StageLoss, optimizer: AdamW | SGD):
        self.names = ("loss", *loss.names)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer

    def __call__(
        self, images: Tensor, labels: Tensor, key: Tensor, learning_rates: Sequence[float]
    ) -> dict[str, float]:
        """images [2PK, 3, H, W], labels [2PK], key int32 scalar, learning rates of the optimizer's groups; the terms
        by name, `loss` being their weighted sum."""
        logits, features = self.model(images, None, key)
        values = self.loss(logits, features, labels)
        self.optimizer.zero_grad()
        values[0].backward()
        self.optimizer.set_learning_rates(learning_rates)
        self.optimizer.step()
        return {name: value.item() for name, value in zip(self.names, values, strict=True)}
