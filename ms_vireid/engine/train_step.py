"""One training step: forward, loss terms, gradients, update; the same code in PyNative and under `mindspore.jit`."""

from collections.abc import Callable

import mindspore as ms
from mindspore import Tensor, amp, nn, ops

from ms_vireid import losses
from ms_vireid.config import LossConfig, Term
from ms_vireid.engine.optimizer import SGD, AdamW

GradientMean = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


class StageLoss(nn.Cell):
    """The weighted sum of a stage's terms (PMT Eqs. 11 and 12, MUN Eq. 17): losses by name, each with its weight."""

    def __init__(self, config: LossConfig, num_instances: int):
        super().__init__()
        terms = config.terms()
        self.names = tuple(terms)
        self.weights = tuple(term.weight for term in terms.values())
        self.terms = nn.CellList([_TERMS[name](term, num_instances) for name, term in terms.items()])

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
        """The model's outputs, logits [2PK, num_classes] and features [2PK, C] first, and labels [2PK] -> (total, each
        unweighted term in order)."""
        total = 0.0
        values = ()
        for term, weight in zip(self.terms, self.weights):  # noqa: B905 (graph mode knows no strict=)
            value = term(outputs, labels)
            total = total + weight * value
            values += (value,)
        return (total, *values)


class OnLogits(nn.Cell):
    """A loss of the logits as a term."""

    def __init__(self, loss: nn.Cell):
        super().__init__()
        self.loss = loss

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.loss(outputs[0], labels)


class OnFeatures(nn.Cell):
    """A loss of the features as a term; `arguments` follow the labels in its call."""

    def __init__(self, loss: nn.Cell, *arguments: int):
        super().__init__()
        self.loss = loss
        self.arguments = arguments

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.loss(outputs[1], labels, *self.arguments)


class OnAuxiliaryLogits(nn.Cell):
    """A loss of C_v(a) and C_r(a) as a term; the outputs from here on are `MUN`'s."""

    def __init__(self, loss: nn.Cell):
        super().__init__()
        self.loss = loss

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.loss(outputs[3], outputs[4], labels[: outputs[3].shape[0]])


class OnModalities(nn.Cell):
    """A loss of the pooled features of v, r and a as a term."""

    def __init__(self, loss: nn.Cell):
        super().__init__()
        self.loss = loss

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        half = outputs[2].shape[0]
        return self.loss(outputs[1][:half], outputs[1][half:], outputs[2])


class OnPrototypes(nn.Cell):
    """A loss of the prototypes of v, r and a as a term."""

    def __init__(self, loss: nn.Cell):
        super().__init__()
        self.loss = loss

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.loss(outputs[5][0], outputs[5][1], outputs[5][2])


class AuxiliaryIdentity(nn.Cell):
    """L_id^a (MUN, Tables 1 and 5): the cross entropy of C_a(a), a mean."""

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        logits = outputs[6]
        return ops.cross_entropy(logits.astype(ms.float32), labels[: logits.shape[0]])


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
    "idc": lambda term, k: OnAuxiliaryLogits(losses.IdentityConsistencyLoss()),
    "ia": lambda term, k: OnModalities(losses.IdentityAlignmentLoss(k, term.margin, term.reduction)),
    "ma": lambda term, k: OnPrototypes(losses.ModalityAlignmentLoss(k, term.bridge)),
    "id_a": lambda term, k: AuxiliaryIdentity(),
}


def _unchanged(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return gradients


class TrainStep:
    """Runs steps of one stage.

    Args:
        model: called as `model(images, None, key, labels)` in training mode.
        loss: the stage's terms. optimizer: holds the trainable weights.
        jit: compile forward, backward and update into one graph.
        scaler: for mixed precision, the model's matrix products and convolutions in float16; normalisations, softmax,
            pooling powers and all losses stay in float32, as do the weights. A step whose gradients overflow float16
            updates nothing.
        gradient_mean: of all devices, of gradients in the order of the optimizer's weights; None: there is one.
    """

    def __init__(
        self,
        model: nn.Cell,
        loss: StageLoss,
        optimizer: AdamW | SGD,
        jit: bool,
        scaler: amp.DynamicLossScaler | None = None,
        gradient_mean: GradientMean | None = None,
    ):
        self.names = ("loss", *loss.names)

        averaged = gradient_mean or _unchanged
        if scaler is None:
            step = _float32_step(model, loss, optimizer, averaged)
        else:
            step = _mixed_step(model, loss, optimizer, averaged, scaler)
        self._step = ms.jit(step) if jit else step

    def __call__(self, images: Tensor, labels: Tensor, key: Tensor, scalars: Tensor) -> dict[str, float]:
        """images [2PK, 3, H, W], labels [2PK], key int32 scalar, scalars of the optimizer's `scalars`; the terms by
        name, `loss` being their weighted sum."""
        values = self._step(images, labels, key, scalars)
        return {name: float(value.asnumpy()) for name, value in zip(self.names, values, strict=True)}


def _float32_step(model: nn.Cell, loss: StageLoss, optimizer: AdamW | SGD, averaged: GradientMean) -> Callable:
    def forward(images, labels, key):
        return loss(model(images, None, key, labels), labels)

    value_and_gradients = ms.value_and_grad(forward, None, optimizer.weights, has_aux=True)

    def step(images, labels, key, scalars):
        values, gradients = value_and_gradients(images, labels, key)
        optimizer(averaged(gradients), scalars)
        return values

    return step


def _mixed_step(
    model: nn.Cell,
    loss: StageLoss,
    optimizer: AdamW | SGD,
    averaged: GradientMean,
    scaler: amp.DynamicLossScaler,
) -> Callable:
    def outputs_of(images, labels, key):
        return model(images, None, key, labels)

    mixed_outputs_of = amp.auto_mixed_precision(outputs_of, "auto", ms.float16)

    def forward(images, labels, key):
        outputs = ()
        for output in mixed_outputs_of(images, labels, key):
            outputs += (output.astype(ms.float32),)
        values = loss(outputs, labels)
        return (scaler.scale(values[0]), *values)

    value_and_gradients = ms.value_and_grad(forward, None, optimizer.weights, has_aux=True)

    def step(images, labels, key, scalars):
        values, gradients = value_and_gradients(images, labels, key)
        gradients = averaged(scaler.unscale(gradients))  # one device's overflow reaches all
        finite = amp.all_finite(gradients)
        scaler.adjust(finite)
        if finite:
            optimizer(gradients, scalars)
        return values[1:]

    return step
