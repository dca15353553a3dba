"""One training step: forward, loss terms, gradients, update."""

from collections.abc import Callable, Sequence
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


def loss_scaler(amp: str | bool, device: torch.device | str) -> torch.amp.GradScaler:
    """As in ms_vireid; disabled for anything but float16."""
    options = {"init_scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}
    return torch.amp.GradScaler(torch.device(device).type, enabled=amp == "float16", **options)


def build_step(
    model: nn.Module,
    loss: StageLoss,
    optimizer: AdamW | SGD,
    amp: str | bool = False,
    clip_norm: float | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> Callable[..., tuple[Tensor, ...]]:
    """Build a stage's step.

    Args:
        model: called as `model(images, None, key, labels, progress)` in training mode.
        amp: False, or "float16" or "bfloat16", the model's type under PyTorch's autocast; losses are in float32.
        clip_norm: limit for the joint norm of all gradients.
        scaler: for float16, from `loss_scaler`. A step whose gradients overflow updates nothing.
    """
    half = getattr(torch, amp) if amp else None
    scaler = scaler or torch.amp.GradScaler(enabled=False)
    weights = [weight for group in optimizer.groups for weight in group.parameters]

    def step(
        images: Tensor, labels: Tensor, key: Tensor, progress: float, learning_rates: Sequence[float]
    ) -> tuple[Tensor, ...]:
        """images [2PK, 3, H, W], labels [2PK], key int32 scalar, progress 0 at the run's first step and 1 at its last,
        learning rates of the optimizer's groups.

        Returns the terms in the order of the loss's `names`, on the device. Reading them waits.
        """
        with torch.autocast(images.device.type, half) if half else nullcontext():
            outputs = model(images, None, key, labels, progress)
        if half:
            outputs = type(outputs)(*(None if output is None else output.float() for output in outputs))
        terms = loss(outputs, labels)
        optimizer.zero_grad()
        scaler.scale(terms[0]).backward()
        for weight in weights:
            if weight.grad is None:  # no term uses this weight; MindSpore updates it by a gradient of 0
                weight.grad = torch.zeros_like(weight)
        optimizer.set_learning_rates(learning_rates)
        scaler.unscale_(optimizer)
        if clip_norm is not None:
            optimizer.clip(clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return tuple(term.detach() for term in terms)

    return step
