"""One training step: forward, loss terms, gradients, update."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from torch_ref.losses.stage import StageLoss
from torch_ref.optimizers.adamw import AdamW
from torch_ref.optimizers.sgd import SGD


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
