"""One training step: forward, loss terms, gradients, update; the same code in PyNative and under `mindspore.jit`."""

import math
from collections.abc import Callable
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.amp import DynamicLossScaler

from ms_vireid import losses
from ms_vireid.config import LossConfig, Term
from ms_vireid.devices import runtime
from ms_vireid.engine.optimizer import SGD, AdamW
from ms_vireid.models.base import TrainingOutputs
from ms_vireid.models.layers import l2_normalise
from ms_vireid.programs.half import HalfWeights
from ms_vireid.programs.prepare import COMPILED, prepare

Gradients = tuple[Tensor, ...]
Mean = Callable[[Gradients], Gradients]


class StageLoss(nn.Cell):
    """The weighted sum of a stage's terms (PMT Eqs. 11 and 12, MUN Eq. 17): losses by name, each with its weight.

    num_instances: K. parts: of a batch, PK rows each.
    """

    def __init__(self, config: LossConfig, num_instances: int, parts: int = 2):
        super().__init__()
        terms = config.terms()
        self.names = tuple(terms)
        self.weights = tuple(term.weight for term in terms.values())
        self.terms = nn.CellList([OnOutputs(term, num_instances, parts) for term in terms.values()])
        self.replacements = {"kernels": _compiled(self.construct)}

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
        """A model's `TrainingOutputs` and labels of all rows -> (total, each unweighted term in order)."""
        parts = ()
        values = ()
        for term, weight in zip(self.terms, self.weights):  # noqa: B905 (graph mode does not know strict=)
            value = term(outputs, labels)
            parts += (value if weight == 1.0 else weight * value,)  # a product and its gradient are two launches
            values += (value,)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return (total, *values)


def _compiled(construct: Callable) -> Callable:
    """What replaces a stage's `construct` on a CPU: value and gradient by one graph, in a third of the time; and
    PyNative keeps 512 bytes of each number among operands, 126 kB a step."""

    def of_outputs(labels, *outputs):
        return construct(outputs, labels)

    @cache
    def graph(places):
        return ms.jit(ms.value_and_grad(of_outputs, places, has_aux=True))

    def by_graph(self, outputs, labels):
        from ms_vireid.programs.kernels.base import Compiled

        return Compiled.apply(graph(tuple(range(1, 1 + len(outputs)))), labels, *outputs)

    return by_graph


class OnOutputs(nn.Cell):
    """A term: a loss called with some of `TrainingOutputs`, and the labels of as many rows."""

    def __init__(self, term: Term, num_instances: int, parts: int):
        super().__init__()
        self.loss = getattr(losses, term.loss)(**term.arguments(num_instances, parts))
        self.normalised = term.of_unit_rows
        self.places = tuple(TrainingOutputs._fields.index(field) for field in term.outputs)
        self.labelled = term.labelled
        self.further = term.further

    def construct(self, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        given = ()
        for place in self.places:
            rows = outputs[place]
            given += (l2_normalise(rows) if self.normalised else rows,)
        if self.labelled:
            count = given[0].shape[0]
            given += (labels if labels.shape[0] == count else labels[:count],)
        return self.loss(*given, *self.further)


def loss_scaler(amp: str | bool) -> DynamicLossScaler | None:
    """For "float16", in which small gradients would be 0: halved after an overflow, doubled after 2000 steps without.
    PyTorch's start of 65,536 cost a small PMT its first two steps; at 1024 none overflowed."""
    return DynamicLossScaler(scale_value=1024.0, scale_factor=2, scale_window=2000) if amp == "float16" else None


def _unchanged(gradients: Gradients) -> Gradients:
    return gradients


class _StepNumbers(nn.Cell):
    """What a step needs besides pictures, as one array of float32: a small copy to the device in place of many.

    Labels are whole numbers below 2^24, and the key is in two halves of 16 bits: float32 holds all of them exactly.
    scalars: shape of the optimizer's.
    """

    def __init__(self, scalars: tuple[int, ...]):
        super().__init__()
        self.scalars = scalars
        self.labels = 3 + math.prod(scalars)  # where they begin

    @staticmethod
    def pack(labels: np.ndarray, key: int, progress: float, scalars: np.ndarray) -> np.ndarray:
        """labels int [2PK], key of 32 bits, progress in [0, 1], scalars -> float32 [n]."""
        high, low = divmod(int(key), 1 << 16)
        return np.concatenate([[high, low, progress], scalars.ravel(), labels], dtype=np.float32)

    def construct(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """float32 [n] -> labels int32 [2PK], key int32, progress float32, scalars float32."""
        whole = packed.astype(ms.int32)
        key = whole[0] * (1 << 16) + whole[1]
        return whole[self.labels :], key, packed[2], packed[3 : self.labels].reshape(self.scalars)


class TrainStep:
    """Runs steps of one stage; the weights are in place before, as a program may lay them out anew.

    Args:
        program: what computes model, loss and optimizer; a "graph" is forward, backward and update in one.
        amp: "float16" or "bfloat16" to train with `HalfWeights`.
        scaler: for float16. A step whose gradients overflow updates nothing.
        gradient_mean: of all devices, of the optimizer's joined gradients; None: there is one.
    """

    def __init__(
        self,
        model: nn.Cell,
        loss: StageLoss,
        optimizer: AdamW | SGD,
        program: str,
        amp: str | bool = False,
        scaler: DynamicLossScaler | None = None,
        gradient_mean: Mean | None = None,
    ):
        self._half, self._first = None, True
        if amp:
            self._half = HalfWeights(model, getattr(ms, amp))
            optimizer.lay_out(apart=self._half.names())
            self._half.lay_out(optimizer.flats)
        prepare(program, model, loss, optimizer)
        self.names = ("loss", *loss.names)
        numbers = _StepNumbers(optimizer.scalars(1, [0.0] * len(optimizer.groups)).shape)
        update = _update(model, loss, optimizer, self._half, scaler, gradient_mean or _unchanged)

        def step(images, packed):
            labels, key, progress, scalars = numbers(packed)
            return ops.stack(update(images, labels, key, progress, scalars))

        self._step = ms.jit(step) if program in COMPILED else step
        self._sent = ()  # of the last step: their copies to the device may still be under way

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, key: int, progress: float, scalars: np.ndarray
    ) -> Tensor:
        """Queue a step on images float32 [2PK, 3, H, W] with labels int32 [2PK] and the step's key of 32 bits; progress
        is 0 at the run's first step and 1 at its last.

        Returns the terms in the order of `names`, "loss" being their weighted sum: float32 [terms], on the device.
        Reading it waits for the step.
        """
        arrays = images, _StepNumbers.pack(labels, key, progress, scalars)
        inputs = tuple(map(runtime.to_device, arrays))
        self._sent = arrays, inputs
        if self._half is None:
            return self._step(*inputs)
        if self._first:  # the weights may have been set since
            self._half.refresh()
            self._first = False
        with self._half.in_place():
            return self._step(*inputs)

    def named(self, values: np.ndarray) -> dict[str, float]:
        """What a call returned, by name."""
        return dict(zip(self.names, map(float, values), strict=True))


def _all_finite(gradients: Gradients) -> Tensor:
    """A boolean scalar, judged by the sum of each tensor: on a GPU a sum is one launch, and `amp.all_finite` three."""
    sums = ()
    for gradient in gradients:
        sums += (gradient.sum().reshape(1),)
    return ops.isfinite(ops.concat(sums)).all()


def _update(
    model: nn.Cell,
    loss: StageLoss,
    optimizer: AdamW | SGD,
    half: HalfWeights | None,
    scaler: DynamicLossScaler | None,
    averaged: Mean,
) -> Callable:
    def forward(images, labels, key, progress):
        if half is not None:
            images = images.astype(half.dtype)
        values = loss(model(images, None, key, labels, progress), labels)
        return values if scaler is None else (scaler.scale(values[0]), *values)

    weights = optimizer.weights if half is None else half.differentiated(optimizer.weights)
    value_and_gradients = ms.value_and_grad(forward, None, weights, has_aux=True)

    def update(images, labels, key, progress, scalars):
        values, gradients = value_and_gradients(images, labels, key, progress)
        gradients, finite = optimizer.joined(gradients), None
        if scaler is None:
            gradients = averaged(gradients)
        else:
            gradients = averaged(scaler.unscale(gradients))  # one device's overflow reaches all
            finite = _all_finite(gradients)
            scaler.adjust(finite)
            values = values[1:]
        optimizer(gradients, scalars, finite)
        if half is not None:
            half.refresh()
        return values

    return update
