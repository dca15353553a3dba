"""One training step: forward, loss terms, gradients, update; the same code in PyNative and under `mindspore.jit`."""

import mindspore as ms
from mindspore import Tensor, nn

from ms_vireid import losses
from ms_vireid.config import LossConfig, Term
from ms_vireid.engine.optimizer import SGD, AdamW


class StageLoss(nn.Cell):
    """The weighted sum of a stage's terms (PMT Eqs. 11 and 12): a list of losses by name, each with its weight."""

    def __init__(self, config: LossConfig, num_instances: int):
        super().__init__()
        terms = config.terms()
        self.names = tuple(terms)
        self.weights = tuple(term.weight for term in terms.values())
        self.terms = nn.CellList([_TERMS[name](term, num_instances) for name, term in terms.items()])

    def construct(self, logits: Tensor, features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """logits [2PK, num_classes], features [2PK, C], labels [2PK] -> (total, each unweighted term in order)."""
        total = 0.0
        values = ()
        for term, weight in zip(self.terms, self.weights):  # noqa: B905 (graph mode knows no strict=)
            value = term(logits, features, labels)
            total = total + weight * value
            values += (value,)
        return (total, *values)


class OnLogits(nn.Cell):
    """A loss of the logits as a term."""

    def __init__(self, loss: nn.Cell):
        super().__init__()
        self.loss = loss

    def construct(self, logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return self.loss(logits, labels)


class OnFeatures(nn.Cell):
    """A loss of the features as a term; `arguments` follow the labels in its call."""

    def __init__(self, loss: nn.Cell, *arguments: int):
        super().__init__()
        self.loss = loss
        self.arguments = arguments

    def construct(self, logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return self.loss(features, labels, *self.arguments)


def _pht(term: Term, num_instances: int) -> nn.Cell:
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
        jit: compile forward, backward and update into one graph.
    """

    def __init__(self, model: nn.Cell, loss: StageLoss, optimizer: AdamW | SGD, jit: bool):
        self.names = ("loss", *loss.names)

        def forward(images, labels, key):
            logits, features = model(images, None, key)
            return loss(logits, features, labels)

        value_and_gradients = ms.value_and_grad(forward, None, optimizer.weights, has_aux=True)

        def step(images, labels, key, scalars):
            values, gradients = value_and_gradients(images, labels, key)
            optimizer(gradients, scalars)
            return values

        self._step = ms.jit(step) if jit else step

    def __call__(self, images: Tensor, labels: Tensor, key: Tensor, scalars: Tensor) -> dict[str, float]:
        """images [2PK, 3, H, W], labels [2PK], key int32 scalar, scalars of the optimizer's `scalars`; the terms by
        name, `loss` being their weighted sum."""
        values = self._step(images, labels, key, scalars)
        return {name: float(value.asnumpy()) for name, value in zip(self.names, values, strict=True)}
