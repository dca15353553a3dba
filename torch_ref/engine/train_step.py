"""One training step: forward, loss terms, gradients, update."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ms_vireid.config import LossConfig, Term
from torch_ref import losses
from torch_ref.engine.optimizer import SGD, AdamW
from torch_ref.models.base import TrainingOutputs
from torch_ref.models.layers import l2_normalise


class StageLoss(nn.Module):
    def __init__(self, config: LossConfig, num_instances: int, parts: int = 2):
        super().__init__()
        terms = config.terms()
        self.names = tuple(terms)
        self.weights = tuple(term.weight for term in terms.values())
        self.terms = nn.ModuleList(OnOutputs(term, num_instances, parts) for term in terms.values())

    def forward(self, outputs: TrainingOutputs, labels: Tensor) -> tuple[Tensor, ...]:
        """The model's outputs and labels of all rows -> (total, each unweighted term in order)."""
        values = tuple(term(outputs, labels) for term in self.terms)
        total = 0.0
        for weight, value in zip(self.weights, values, strict=True):
            total = total + weight * value
        return (total, *values)


class OnOutputs(nn.Module):
    def __init__(self, term: Term, num_instances: int, parts: int):
        super().__init__()
        self.loss = getattr(losses, term.loss)(**term.arguments(num_instances, parts))
        self.normalised = term.of_unit_rows
        self.fields = term.outputs
        self.labelled = term.labelled
        self.further = term.further

    def forward(self, outputs: TrainingOutputs, labels: Tensor) -> Tensor:
        given = [getattr(outputs, field) for field in self.fields]
        if self.normalised:
            given = list(map(l2_normalise, given))
        if self.labelled:
            given.append(labels[: len(given[0])])
        return self.loss(*given, *self.further)


def loss_scaler(amp: str | bool, device: torch.device | str) -> torch.amp.GradScaler:
    """As its twin; for anything but float16 it changes nothing."""
    options = {"init_scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}
    return torch.amp.GradScaler(torch.device(device).type, enabled=amp == "float16", **options)


class TrainStep:
    """Runs steps of one stage.

    Args:
        model: called as `model(images, None, key, labels, progress)` in training mode.
        loss: the stage's terms. optimizer: holds the trainable weights.
        amp: False, or "float16" or "bfloat16", the model's type under PyTorch's autocast; losses are in float32.
        scaler: for float16, of `loss_scaler`. A step whose gradients overflow updates nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: StageLoss,
        optimizer: AdamW | SGD,
        amp: str | bool = False,
        scaler: torch.amp.GradScaler | None = None,
    ):
        self.names = ("loss", *loss.names)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.half = getattr(torch, amp) if amp else None
        self.scaler = scaler

    def __call__(
        self, images: Tensor, labels: Tensor, key: Tensor, progress: float, learning_rates: Sequence[float]
    ) -> tuple[Tensor, ...]:
        """images [2PK, 3, H, W], labels [2PK], key int32 scalar, progress 0 at the run's first step and 1 at its last,
        learning rates of the optimizer's groups.

        Returns the terms in the order of `names`, "loss" being their weighted sum, on the device. Reading them waits.
        """
        with torch.autocast(images.device.type, self.half) if self.half else nullcontext():
            outputs = self.model(images, None, key, labels, progress)
        if self.half:
            outputs = type(outputs)(*(None if output is None else output.float() for output in outputs))
        values = self.loss(outputs, labels)
        self.optimizer.zero_grad()
        (self.scaler.scale(values[0]) if self.scaler else values[0]).backward()
        for group in self.optimizer.groups:
            for weight in group.parameters:
                if weight.grad is None:  # of a weight that no term uses; MindSpore's gradient is 0, and its update made
                    weight.grad = torch.zeros_like(weight)
        self.optimizer.set_learning_rates(learning_rates)
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        return tuple(value.detach() for value in values)

    def named(self, values: tuple[Tensor, ...]) -> dict[str, float]:
        """What a call returned, by name."""
        return dict(zip(self.names, map(float, values), strict=True))
