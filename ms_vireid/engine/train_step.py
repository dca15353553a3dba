"""One training step: forward, loss terms, gradients, update."""

from collections.abc import Callable

from mindspore import Tensor, nn
from mindspore.amp import DynamicLossScaler

from ms_vireid.backends import half
from ms_vireid.backends.backend import Backend, Step
from ms_vireid.losses.stage import StageLoss
from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.sgd import SGD

Gradients = tuple[Tensor, ...]


def loss_scaler(amp: str | bool) -> DynamicLossScaler | None:
    """Make a loss scaler for "float16", in which small gradients would become 0: halved after an overflow, doubled
    after 2000 steps without. PyTorch's initial 65,536 cost a small PMT its first two steps; at 1024 none overflowed."""
    return DynamicLossScaler(scale_value=1024.0, scale_factor=2, scale_window=2000) if amp == "float16" else None


def build_step(
    model: nn.Cell,
    loss: StageLoss,
    optimizer: AdamW | SGD,
    backend: Backend,
    clip_norm: float | None = None,
    scaler: DynamicLossScaler | None = None,
    gradient_mean: Callable[[Gradients], Gradients] | None = None,
    announce: bool = False,
) -> Step:
    """Build a stage's step, as `Backend.step` returns it. Load weights first: the backend may move them.

    Args:
        backend: computes model, loss and update.
        clip_norm: limit for the joint norm of all gradients.
        scaler: for float16. A step whose gradients overflow updates nothing.
        gradient_mean: averages gradients over all devices.
    """
    computation = backend.accelerate(model, loss, optimizer)
    layout = computation.layout(optimizer)

    def forward(images, labels, key, progress):
        terms = loss(model(images, None, key, labels, progress), labels)
        return (scaler.scale(terms[0]), *terms) if scaler is not None else terms

    gradients_of = computation.gradients(forward, layout)

    def update(images, labels, key, progress, scalars):
        terms, gradients = gradients_of(images, labels, key, progress)
        finite = None
        if gradient_mean is not None:
            gradients = gradient_mean(gradients)  # one device's overflow reaches all
        if scaler is not None:
            terms, (gradients, finite) = terms[1:], half.unscaled(scaler, gradients)
        if clip_norm is not None:
            gradients = optimizer.clip(gradients, clip_norm)
        optimizer(layout.parts, gradients, scalars, finite)
        return terms

    return computation.step(update, announce)
