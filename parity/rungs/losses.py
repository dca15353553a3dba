"""Rung 3: each loss's value and gradient against PyTorch's, and against the equation as a float64 loop."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import mindspore as ms
import numpy as np
import torch

from ms_vireid import losses as mindspore_losses
from ms_vireid.config import LossConfig
from ms_vireid.losses.stage import StageLoss as MindSporeStageLoss
from ms_vireid.models.prototypes import ModalityPrototypes
from parity import equations
from parity.compare import FORWARD, GRADIENT, Comparison, compare, compare_names
from parity.harness import (
    ALL_BUT_KERNELS,
    Case,
    CompareBackend,
    all_of,
    computed_by,
    from_saved_buffers,
    once,
    prepared,
)
from parity.states import to_torch
from torch_ref import losses as torch_losses
from torch_ref.losses.stage import StageLoss as TorchStageLoss
from torch_ref.models.base import TrainingOutputs
from torch_ref.models.prototypes import ModalityPrototypes as TorchPrototypes

# The batch of the paper, and batches on which an equation is at its limits.
BATCHES = equations.BATCHES | {
    "P = 8, K = 4, width 768": lambda: equations.random_batch(8, 4, 768, seed=9, identity_spread=0.1),
    "identical rows": equations.identical_batch,
    "one identity": lambda: equations.random_batch(1, 3, 4, seed=11),
}
# For WRT as released, whose weights vanish as distances grow.
OF_SCALES = {f"features times {scale}": partial(equations.wrt_batch, scale) for scale in equations.WRT_SCALES}
OF_ROWS = partial(equations.identity_loss, over="rows")
# Those that graphs are compiled for, as every shape needs one of its own and a second or two: the paper's batch, and
# where an equation is at its limits. A graph has the operators of the other backend, and no branch on values.
COMPILED = (
    "P = 8, K = 4, width 768",
    "P = 8, K = 4, width 2048",
    "identical rows",
    "one identity",
    "logits of about 1.0",
    "logits",
    "features times 3.0",
)


OF_FEATURES = ("triplet", "pht", "wrt", "esd", "hct", "msel", "dcl", "ia")  # terms that can take rows of unit length


def exported() -> list[Comparison]:
    packages = mindspore_losses, torch_losses
    public = [{name for name, value in vars(package).items() if callable(value)} for package in packages]
    return [compare_names("public names", *public)]


def loss_case(loss: equations.Loss, batches: Mapping = BATCHES, differenced: bool | None = None) -> CompareBackend:
    def build(package, k):
        called, extra = loss.build(package, k), loss.extra  # apart: a compiled function may not see lambdas

        def of_rows(rows, labels):
            return called(rows, labels, *extra)

        return called, of_rows

    return _agree_on(batches, loss.loop, build, differenced)


def identity_case(name: str, loop: Callable, **arguments: Any) -> CompareBackend:
    """Rows are logits, not features. arguments: of the loss and of the loop."""
    parts = arguments.get("parts", 2)

    def make(scale: float):
        rng = np.random.default_rng(4)
        labels = np.tile(np.repeat(np.arange(4), 3), parts).astype(np.int32)
        return (scale * rng.normal(size=(12 * parts, 7))).astype(np.float32), labels

    batches = {f"logits of about {scale}": partial(make, scale) for scale in (0.1, 1.0, 30.0, 1000.0)}
    build = lambda package, _k: [getattr(package, name)(**arguments)] * 2  # noqa: E731
    return _agree_on(batches, partial(loop, **arguments), build, differenced=True)


def consistency_case() -> CompareBackend:
    """L_idc: rows are both classifiers' logits, [2n, N]."""

    def make():
        rng = np.random.default_rng(5)
        return (3.0 * rng.normal(size=(16, 7))).astype(np.float32), np.repeat(np.arange(4), 2).astype(np.int32)

    def build(package, _k):
        loss = package.IdentityConsistencyLoss()

        def of_rows(rows, labels):
            return loss(rows[:8], rows[8:], labels)

        return loss, of_rows

    def loop(rows, labels):
        return equations.identity_consistency(rows[:8], rows[8:], labels)

    return _agree("logits", make, loop, build, differenced=True)


def modality_case(loss: equations.ModalityLoss) -> CompareBackend:
    """Rows are [3PK, C]: those of visible, infrared and auxiliary."""
    batches = equations.MODALITY_BATCHES | {
        "P = 8, K = 4, width 2048": lambda: (equations.modality_batch(8, 4, 2048, seed=9, identity_spread=0.1), 4),
        "identical rows": lambda: (equations.identical_modalities(), 3),
        "one identity": lambda: (equations.modality_batch(1, 3, 4, seed=11), 3),
    }
    parts = []
    for name, make in batches.items():
        rows, k = make()
        exact = rows.astype(np.float64)

        def build(package, _k, k=k):
            called = loss.build(package, k)

            def of_rows(flat, _labels):
                modalities = flat.reshape(3, -1, flat.shape[1])
                return called(modalities[0], modalities[1], modalities[2])

            return called, of_rows

        def loop(flat, _labels, shape=rows.shape, k=k, fixed=exact):
            return loss.loop(flat.reshape(shape), k, fixed=fixed)

        def flat(rows=rows):
            return rows.reshape(-1, rows.shape[2]), np.zeros(2 * len(rows[0]), np.int32)

        parts.append(_agree(name, flat, loop, build, differenced=name in equations.MODALITY_BATCHES))
    return all_of(*parts)


def prototypes_case(memory: str) -> CompareBackend:
    """Compare five iterations with changing identities and one backward pass through all: prototypes, the gradients of
    every iteration's features and of W_p, and the memory."""
    identities, k, width, classes = 3, 2, 4, 5
    rng = np.random.default_rng(3)
    features = rng.normal(size=(5, 3, identities * k, width)).astype(np.float32)
    labels = np.repeat([rng.permutation(classes)[:identities] for _ in range(5)], k, axis=1).astype(np.int32)
    probe = rng.normal(size=features.shape).astype(np.float32)
    betas = [float(beta) for beta in np.linspace(1e-8, 1.0, 5)]
    arguments = identities, k, width, memory, classes
    cell, module = ModalityPrototypes(*arguments), TorchPrototypes(*arguments)
    weights = rng.normal(size=(3, width, width)).astype(np.float32)
    cell.projection.set_data(ms.Tensor(weights))
    to_torch(cell, module)

    given = ms.Tensor(labels), ms.Tensor(probe)

    def weighed(rows, labels, probe):
        results = ()
        for i in range(5):
            results += (cell(rows[i], betas[i], labels[i]),)
        result = ms.ops.stack(results)
        return (result * probe).sum(), result

    gradients_of = ms.value_and_grad(weighed, 0, ms.ParameterTuple([cell.projection]), has_aux=True)
    watched = torch.tensor(features, requires_grad=True)
    theirs = torch.stack([module(watched[i], betas[i], torch.from_numpy(labels)[i]) for i in range(5)])
    total = (theirs * torch.from_numpy(probe)).sum()
    gradients = torch.autograd.grad(total, [watched, module.projection])

    # In the equations the memory is a constant of the derivative.
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

    def compare_backend(backend: str) -> list[Comparison]:
        (_, ours), (of_features, (of_weights,)) = computed_by(backend, gradients_of)(ms.Tensor(features), *given)
        ours, of_features, of_weights = (result.asnumpy() for result in (ours, of_features, of_weights))
        return [
            compare("prototypes", ours, theirs.detach().numpy(), FORWARD),
            compare("prototypes, equation", ours, np.stack(expected), FORWARD),
            compare("gradient of features", of_features, gradients[0].numpy(), GRADIENT),
            compare("gradient of features, equation", of_features, np.stack(slopes), GRADIENT),
            compare("gradient of W_p", of_weights, gradients[1].numpy(), GRADIENT),
            compare("gradient of W_p, equation", of_weights, of_matrices, GRADIENT),
            *(
                compare(f"buffer {name}", getattr(cell, name).asnumpy(), value.detach().numpy(), FORWARD)
                for name, value in module.named_buffers()
            ),
        ]

    return from_saved_buffers(cell, compare_backend)


def terms_case(normalised: bool) -> CompareBackend:
    """Compare all terms, each on the outputs that its section names; MSEL, as released, takes cosine distances after
    BNNeck. normalised: terms of features scale rows to unit length first."""
    rows, labels = equations.random_batch(3, 2, 5, seed=12)
    own = labels[: len(labels) // 2]  # of one modality
    rng = np.random.default_rng(12)

    def logits(count: int) -> np.ndarray:
        return rng.normal(size=(count, 8)).astype(np.float32)

    modalities, prototypes = (equations.modality_batch(3, 2, 5, seed=seed) for seed in (13, 14))
    outputs = TrainingOutputs(
        logits(len(rows)),
        rows,
        rng.normal(size=rows.shape).astype(np.float32),
        *modalities,
        *(logits(len(own)) for _ in range(2)),
        *prototypes,
        logits(len(own)),
    )
    terms = {
        "id": {},
        "triplet": {"margin": 0.3},
        "pht": {"margin": 0.1, "stage": 1, "feature": "bnneck"},
        "wrt": {"feature": "bnneck"},
        "esd": {},
        "hct": {"margin": 0.3},
        "msel": {"distance": "cosine"},
        "dcl": {},
        "idc": {},
        "ia": {},
        "ma": {},
        "id_a": {},
    }
    if normalised:
        terms = {name: keys | {"normalised": True} for name, keys in terms.items() if name in OF_FEATURES}
    config = LossConfig.model_validate(terms)
    stage_loss = MindSporeStageLoss(config, 2)
    watched = TrainingOutputs(*(torch.tensor(output, requires_grad=True) for output in outputs))
    theirs = TorchStageLoss(config, 2)(watched, torch.from_numpy(labels))
    slopes = torch.autograd.grad(theirs[0], watched, materialize_grads=True)  # 0 of what no term takes
    exact = TrainingOutputs(*(output.astype(np.float64) for output in outputs))
    before, after, of_modalities = exact.pooled, exact.bnneck, modalities.astype(np.float64)
    if normalised:
        before, after, of_modalities = (
            rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (before, after, of_modalities)
        )
    expected = {
        "id": equations.identity_loss(exact.logits, labels),
        "triplet": equations.hard_triplet(before, labels, 0.3),
        "pht": equations.progressive_triplet(after, labels, 1, 0.1),
        "wrt": equations.weighted_triplet(after, labels),
        "esd": equations.enhanced_squared_difference(before, labels),
        "hct": equations.hetero_center_triplet(before, labels, 0.3),
        "msel": equations.msel(after, labels, equations.cosine),
        "dcl": equations.dcl(before, labels),
        "idc": equations.identity_consistency(exact.visible_logits, exact.infrared_logits, own),
        "ia": equations.identity_alignment(of_modalities, 2, 0.55),
        "ma": equations.modality_alignment(prototypes.astype(np.float64), 2),
        "id_a": equations.identity_loss(exact.auxiliary_logits, own, over="rows"),
    }

    def of_outputs(labels, *outputs):
        return stage_loss(outputs, labels)

    value_and_gradients = ms.value_and_grad(of_outputs, tuple(range(1, 1 + len(outputs))), has_aux=True)

    def compare_backend(backend: str) -> list[Comparison]:
        prepared(backend, stage_loss)
        ours, gradients = computed_by(backend, value_and_gradients)(ms.Tensor(labels), *map(ms.Tensor, outputs))
        comparisons = [compare("total", ours[0].asnumpy(), theirs[0].detach().numpy(), FORWARD)]
        for name, value, other in zip(terms, ours[1:], theirs[1:], strict=True):
            comparisons.append(compare(f"term {name}", value.asnumpy(), other.detach().numpy(), FORWARD))
            comparisons.append(compare(f"term {name}, equation", value.asnumpy(), np.asarray(expected[name]), FORWARD))
        for name, gradient, slope in zip(TrainingOutputs._fields, gradients, slopes, strict=True):
            comparisons.append(compare(f"gradient of {name}", gradient.asnumpy(), slope.numpy(), GRADIENT))
        return comparisons

    return compare_backend


def _agree_on(
    batches: Mapping[str, Callable], loop: Callable, build: Callable, differenced: bool | None = None
) -> CompareBackend:
    return all_of(*(_agree(name, make, loop, build, differenced) for name, make in batches.items()))


def _agree(batch: str, make, loop, build, differenced: bool | None = None) -> CompareBackend:
    """Compare a loss on one batch with PyTorch and the equation; by a graph only on the batches in `COMPILED`.

    build: makes the loss and a function of rows and labels that calls it. differenced: whether the loop is smooth and
    small enough for a numeric gradient; default: True for the batches of `parity.equations`.
    """
    rows, labels = make()
    k = equations.instances_of(labels)
    if differenced is None:
        differenced = batch in equations.BATCHES
    watched = torch.tensor(rows, requires_grad=True)
    torch_value = build(torch_losses, k)[1](watched, torch.from_numpy(labels))
    (torch_gradient,) = torch.autograd.grad(torch_value, watched)

    exact = rows.astype(np.float64)
    by_equation = np.asarray(loop(exact, labels))
    numeric = equations.numeric_gradient(lambda x: loop(x, labels), exact) if differenced else None
    cell, of_rows = build(mindspore_losses, k)
    gradient_of = ms.value_and_grad(of_rows)

    def compare_backend(backend: str) -> list[Comparison]:
        if backend in ("graph", "cuda") and batch not in COMPILED:
            return []
        prepared(backend, cell)
        value, gradient = computed_by(backend, gradient_of)(ms.Tensor(rows), ms.Tensor(labels))
        value, gradient = value.asnumpy(), gradient.asnumpy()
        comparisons = [
            compare(f"value, {batch}", value, torch_value.detach().numpy(), FORWARD),
            compare(f"value, {batch}, equation", value, by_equation, FORWARD, _scale(value)),
            compare(f"gradient, {batch}", gradient, torch_gradient.numpy(), GRADIENT),
        ]
        if numeric is not None:
            comparisons.append(compare(f"gradient, {batch}, equation", gradient, numeric, GRADIENT))
        return comparisons

    return compare_backend


def _scale(value: np.ndarray) -> float:
    return max(abs(float(value)), 1e-1)  # losses of rows that coincide are 0 up to the rounding of the rows' lengths


def _case(subject: str, compared: Callable[[], CompareBackend]) -> Case:
    """Make the case of a loss; the CPU has no kernels of losses."""
    return Case(3, subject, compared, backends=ALL_BUT_KERNELS)


CASES = [
    once(3, "losses", exported),
    _case("IdentityLoss", partial(identity_case, "IdentityLoss", equations.identity_loss)),
    _case("AuxiliaryIdentityLoss", partial(identity_case, "AuxiliaryIdentityLoss", OF_ROWS)),
    *(
        _case(
            f"IdentityLoss, {parts} parts, over {over}",
            partial(identity_case, "IdentityLoss", equations.identity_loss, parts=parts, over=over),
        )
        for parts, over in ((2, "rows"), (3, "modalities"), (3, "rows"))
    ),
    *(_case(name, partial(loss_case, loss)) for name, loss in equations.LOSSES.items()),
    _case("wrt, features of five scales", partial(loss_case, equations.LOSSES["wrt"], OF_SCALES, True)),
    _case("IdentityConsistencyLoss", consistency_case),
    *(_case(name, partial(modality_case, loss)) for name, loss in equations.MODALITY_LOSSES.items()),
    *(_case(f"ModalityPrototypes, {memory}", partial(prototypes_case, memory)) for memory in ("slots", "identity")),
    # A stage's loss is a graph in the backend of kernels.
    Case(3, "terms on their features", partial(terms_case, False)),
    Case(3, "terms on their features, normalised", partial(terms_case, True)),
]
