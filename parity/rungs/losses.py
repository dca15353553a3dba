"""Rung 3: each loss's value and gradient against PyTorch's, and against the equation as a float64 loop."""

from functools import partial

import mindspore as ms
import numpy as np
import torch

from ms_vireid import losses as mindspore_losses
from parity import equations
from parity.compare import FORWARD, GRADIENT, Comparison, compare, compare_names
from parity.harness import Case
from torch_ref import losses as torch_losses

# The batch of the paper, and batches on which an equation is at its limits.
BATCHES = equations.BATCHES | {
    "P = 8, K = 4, width 768": lambda: equations.random_batch(8, 4, 768, seed=9, identity_spread=0.1),
    "identical rows": equations.identical_batch,
    "one identity": lambda: equations.random_batch(1, 3, 4, seed=11),
}


def exported() -> list[Comparison]:
    return [compare_names("public names", mindspore_losses.__all__, torch_losses.__all__)]


def loss_case(loss: equations.Loss) -> list[Comparison]:
    return [
        comparison
        for name, make in BATCHES.items()
        for comparison in _agree(
            name, make, loss.loop, lambda package, k: partial_call(loss.build(package, k), loss.extra)
        )
    ]


def identity_case() -> list[Comparison]:
    """Rows are logits, not features."""

    def make(scale: float):
        rng = np.random.default_rng(4)
        labels = np.tile(np.repeat(np.arange(4), 3), 2).astype(np.int32)
        return (scale * rng.normal(size=(24, 7))).astype(np.float32), labels

    return [
        comparison
        for scale in (0.1, 1.0, 30.0)
        for comparison in _agree(
            f"logits of about {scale}",
            partial(make, scale),
            equations.identity_loss,
            lambda package, _k: package.IdentityLoss(),
        )
    ]


def partial_call(loss, extra: tuple):
    return lambda rows, labels: loss(rows, labels, *extra)


def _agree(batch: str, make, loop, build) -> list[Comparison]:
    rows, labels = make()
    k = equations.instances_of(labels)
    value, gradient = ms.value_and_grad(build(mindspore_losses, k))(ms.Tensor(rows), ms.Tensor(labels))
    value, gradient = value.asnumpy(), gradient.asnumpy()
    watched = torch.tensor(rows, requires_grad=True)
    torch_value = build(torch_losses, k)(watched, torch.from_numpy(labels))
    (torch_gradient,) = torch.autograd.grad(torch_value, watched)

    exact = rows.astype(np.float64)
    comparisons = [
        compare(f"value, {batch}", value, torch_value.detach().numpy(), FORWARD),
        compare(f"value, {batch}, equation", value, np.asarray(loop(exact, labels)), FORWARD, _scale(value)),
        compare(f"gradient, {batch}", gradient, torch_gradient.numpy(), GRADIENT),
    ]
    if batch in equations.BATCHES or loop is equations.identity_loss:  # smooth there, and small enough to difference
        numeric = equations.numeric_gradient(lambda x: loop(x, labels), exact)
        comparisons.append(compare(f"gradient, {batch}, equation", gradient, numeric, GRADIENT))
    return comparisons


def _scale(value: np.ndarray) -> float:
    return max(abs(float(value)), 1e-1)  # losses of rows that coincide are 0 up to the rounding of the rows' lengths


CASES = [
    Case(3, "losses", exported),
    Case(3, "IdentityLoss", identity_case),
    *(Case(3, name, partial(loss_case, loss)) for name, loss in equations.LOSSES.items()),
]
