"""Rung 3: each loss's value and gradient against PyTorch's, and against the equation as a float64 loop."""

from functools import partial

import mindspore as ms
import numpy as np
import torch

from ms_vireid import losses as mindspore_losses
from ms_vireid.config import LossConfig
from ms_vireid.engine.train_step import StageLoss as MindSporeStageLoss
from parity import equations
from parity.compare import FORWARD, GRADIENT, Comparison, compare, compare_names
from parity.convert import to_torch
from parity.harness import Case
from torch_ref import losses as torch_losses
from torch_ref.engine.train_step import StageLoss as TorchStageLoss

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


def consistency_case() -> list[Comparison]:
    """L_idc: rows are both classifiers' logits, [2n, N]."""

    def make():
        rng = np.random.default_rng(5)
        return (3.0 * rng.normal(size=(16, 7))).astype(np.float32), np.repeat(np.arange(4), 2).astype(np.int32)

    def build(package, _k):
        loss = package.IdentityConsistencyLoss()
        return lambda rows, labels: loss(rows[:8], rows[8:], labels)

    def loop(rows, labels):
        return equations.identity_consistency(rows[:8], rows[8:], labels)

    return _agree("logits", make, loop, build, differenced=True)


def modality_case(loss: equations.ModalityLoss) -> list[Comparison]:
    """Rows are [3PK, C]: those of visible, infrared and auxiliary."""
    batches = equations.MODALITY_BATCHES | {
        "P = 8, K = 4, width 2048": lambda: (equations.modality_batch(8, 4, 2048, seed=9, identity_spread=0.1), 4),
        "identical rows": lambda: (equations.identical_modalities(), 3),
        "one identity": lambda: (equations.modality_batch(1, 3, 4, seed=11), 3),
    }
    comparisons = []
    for name, make in batches.items():
        rows, k = make()
        exact = rows.astype(np.float64)

        def build(package, _k, k=k):
            called = loss.build(package, k)
            return lambda flat, _labels: called(*flat.reshape(3, -1, flat.shape[1]))

        def loop(flat, _labels, shape=rows.shape, k=k, fixed=exact):
            return loss.loop(flat.reshape(shape), k, fixed=fixed)

        def flat(rows=rows):
            return rows.reshape(-1, rows.shape[2]), np.zeros(2 * len(rows[0]), np.int32)

        comparisons += _agree(name, flat, loop, build, differenced=name in equations.MODALITY_BATCHES)
    return comparisons


def prototypes_case(memory: str) -> list[Comparison]:
    """Five iterations and one backward pass through all of them: prototypes, gradients of every iteration's features
    and of W_p, and what is remembered, with identities that change."""
    identities, k, width, classes = 3, 2, 4, 5
    rng = np.random.default_rng(3)
    features = rng.normal(size=(5, 3, identities * k, width)).astype(np.float32)
    labels = np.repeat([rng.permutation(classes)[:identities] for _ in range(5)], k, axis=1).astype(np.int32)
    probe = rng.normal(size=features.shape).astype(np.float32)
    betas = [float(beta) for beta in np.linspace(1e-8, 1.0, 5)]
    arguments = identities, k, width, memory, classes
    cell, module = mindspore_losses.ModalityPrototypes(*arguments), torch_losses.ModalityPrototypes(*arguments)
    weights = rng.normal(size=(3, width, width)).astype(np.float32)
    cell.projection.set_data(ms.Tensor(weights))
    to_torch(cell, module)

    def run(prototypes, stack, features, labels):
        return stack([prototypes(features[i], betas[i], labels[i]) for i in range(5)])

    def weighed(rows):
        result = run(cell, ms.ops.stack, rows, ms.Tensor(labels))
        return (result * ms.Tensor(probe)).sum(), result

    trained = ms.ParameterTuple([cell.projection])
    (_, ours), (of_features, (of_weights,)) = ms.value_and_grad(weighed, 0, trained, has_aux=True)(ms.Tensor(features))
    watched = torch.tensor(features, requires_grad=True)
    theirs = run(module, torch.stack, watched, torch.from_numpy(labels))
    total = (theirs * torch.from_numpy(probe)).sum()
    gradients = torch.autograd.grad(total, [watched, module.projection])

    # By the equations, what is remembered does not change with what the derivative is taken of.
    exact, matrices = features.astype(np.float64), weights.astype(np.float64)
    expected, slopes, of_matrices, remembered = [], [], np.zeros_like(matrices), {}
    for i in range(5):
        places = range(identities * k) if memory == "slots" else [(int(p), j % k) for j, p in enumerate(labels[i])]

        def value(z, w, i=i, places=places, remembered=remembered):
            return (probe[i] * equations.prototypes(z, w, betas[i], places, remembered)).sum()

        slopes.append(equations.numeric_gradient(partial(value, w=matrices), exact[i]))
        of_matrices += equations.numeric_gradient(partial(value, exact[i]), matrices)
        expected.append(equations.prototypes(exact[i], matrices, betas[i], places, remembered))
        remembered = equations.remembered(expected[-1], places, remembered)

    of_weights = of_weights.asnumpy()
    return [
        compare("prototypes", ours.asnumpy(), theirs.detach().numpy(), FORWARD),
        compare("prototypes, equation", ours.asnumpy(), np.stack(expected), FORWARD),
        compare("gradient of features", of_features.asnumpy(), gradients[0].numpy(), GRADIENT),
        compare("gradient of features, equation", of_features.asnumpy(), np.stack(slopes), GRADIENT),
        compare("gradient of W_p", of_weights, gradients[1].numpy(), GRADIENT),
        compare("gradient of W_p, equation", of_weights, of_matrices, GRADIENT),
        *(
            compare(f"buffer {name}", getattr(cell, name).asnumpy(), value.detach().numpy(), FORWARD)
            for name, value in module.named_buffers()
        ),
    ]


def terms_case() -> list[Comparison]:
    """Each term takes the feature that it names: the release's for MSEL, which is after BNNeck for cosine distances."""
    rows, labels = equations.random_batch(3, 2, 5, seed=12)
    rng = np.random.default_rng(12)
    outputs = rng.normal(size=(len(rows), 4)).astype(np.float32), rows, rng.normal(size=rows.shape).astype(np.float32)
    terms = {
        "triplet": {"margin": 0.3},
        "pht": {"margin": 0.1, "stage": 1, "feature": "bnneck"},
        "wrt": {"feature": "bnneck"},
        "hct": {"margin": 0.3},
        "msel": {"distance": "cosine"},
        "dcl": {},
    }
    config = LossConfig.model_validate(terms)
    ours = MindSporeStageLoss(config, 2)(tuple(map(ms.Tensor, outputs)), ms.Tensor(labels))
    theirs = TorchStageLoss(config, 2)(tuple(map(torch.from_numpy, outputs)), torch.from_numpy(labels))
    _, before, after = (output.astype(np.float64) for output in outputs)
    expected = [
        equations.hard_triplet(before, labels, 0.3),
        equations.progressive_triplet(after, labels, 1, 0.1),
        equations.released_weighted_triplet(after, labels),
        equations.hetero_center_triplet(before, labels, 0.3),
        equations.msel(after, labels, equations.cosine),
        equations.dcl(before, labels),
    ]
    comparisons = [compare("total", ours[0].asnumpy(), theirs[0].numpy(), FORWARD)]
    for name, value, other, exact in zip(terms, ours[1:], theirs[1:], expected, strict=True):
        comparisons.append(compare(f"term {name}", value.asnumpy(), other.numpy(), FORWARD))
        comparisons.append(compare(f"term {name}, equation", value.asnumpy(), np.asarray(exact), FORWARD))
    return comparisons


def scaled_weights_case() -> list[Comparison]:
    """WRT as released on features of five scales: its weights vanish as the distances grow."""
    return [
        comparison
        for scale in equations.WRT_SCALES
        for comparison in _agree(
            f"features times {scale}",
            partial(equations.wrt_batch, scale),
            equations.released_weighted_triplet,
            lambda package, _k: package.WeightedRegularizedTripletLoss(),
            differenced=True,
        )
    ]


def partial_call(loss, extra: tuple):
    return lambda rows, labels: loss(rows, labels, *extra)


def _agree(batch: str, make, loop, build, differenced: bool | None = None) -> list[Comparison]:
    """differenced: whether the loop is smooth there, and small enough, to difference it; by default as its batch is."""
    rows, labels = make()
    k = equations.instances_of(labels)
    if differenced is None:
        differenced = batch in equations.BATCHES or loop is equations.identity_loss
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
    if differenced:
        numeric = equations.numeric_gradient(lambda x: loop(x, labels), exact)
        comparisons.append(compare(f"gradient, {batch}, equation", gradient, numeric, GRADIENT))
    return comparisons


def _scale(value: np.ndarray) -> float:
    return max(abs(float(value)), 1e-1)  # losses of rows that coincide are 0 up to the rounding of the rows' lengths


CASES = [
    Case(3, "losses", exported),
    Case(3, "IdentityLoss", identity_case),
    *(Case(3, name, partial(loss_case, loss)) for name, loss in equations.LOSSES.items()),
    Case(3, "wrt, features of five scales", scaled_weights_case),
    Case(3, "terms on their features", terms_case),
    Case(3, "IdentityConsistencyLoss", consistency_case),
    *(Case(3, name, partial(modality_case, loss)) for name, loss in equations.MODALITY_LOSSES.items()),
    *(Case(3, f"ModalityPrototypes, {memory}", partial(prototypes_case, memory)) for memory in ("slots", "identity")),
]
