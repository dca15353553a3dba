"""The losses as slow, obvious loops in float64, written from the printed equations, and their numeric gradients.

Nothing here imports the toolbox or a framework. Features are [2PK, C] float64 arrays, visible half first; labels are
[2PK]. Where an equation is undefined (no negative, denominator 0) the loops state the definition the toolbox promises.
`LOSSES` and `BATCHES` say which loop is which loss, and on what they are compared.
"""

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def euclidean(a, b):
    return math.dist(a, b)


def cosine(a, b):
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def numeric_gradient(function, features, step=1e-6):
    """Central differences of `function` at each entry of float64 `features`."""
    gradient = np.zeros_like(features)
    for index in np.ndindex(*features.shape):
        offset = np.zeros_like(features)
        offset[index] = step
        gradient[index] = (function(features + offset) - function(features - offset)) / (2 * step)
    return gradient


def cross_entropies(logits, labels):
    return [
        math.log(sum(math.exp(z - max(row)) for z in row)) + max(row) - row[label]
        for row, label in zip(logits.tolist(), labels, strict=True)
    ]


def identity_loss(logits, labels, parts=2, over="modalities"):
    """Cross entropy; the last of `parts` is infrared: the sum of both modalities' means, or one mean over all rows."""
    losses = cross_entropies(logits, labels)
    seen = len(labels) - len(labels) // parts
    return mean(losses) if over == "rows" else mean(losses[:seen]) + mean(losses[seen:])


def brackets(features, labels, margin):
    """[max D(i, j) - min D(i, k) + m]_+ for each row i."""
    rows, result = features.tolist(), []
    for i, anchor in enumerate(rows):
        positives = [euclidean(anchor, row) for j, row in enumerate(rows) if labels[j] == labels[i]]
        negatives = [euclidean(anchor, row) for j, row in enumerate(rows) if labels[j] != labels[i]]
        result.append(max(0.0, max(positives) - min(negatives) + margin) if negatives else 0.0)
    return result


def hard_triplet(features, labels, margin):
    return mean(brackets(features, labels, margin))


def progressive_triplet(features, labels, stage, margin, reduce=mean):
    """Eq. 3 for stage 1, Eq. 4 for stage 2."""
    if stage == 2:
        return reduce(brackets(features, labels, margin))
    half = len(labels) // 2
    visible = brackets(features[:half], labels[:half], margin)
    infrared = brackets(features[half:], labels[half:], margin)
    return reduce(visible) + reduce(infrared)


def released_weights(values, inside):
    """AGW's released code: exp(v - top) / (sum + 1e-6) for the values inside a mask; `top` is taken of the masked row,
    where those outside are 0."""
    top = max(v if i else 0.0 for v, i in zip(values, inside, strict=True))
    shares = [math.exp(v - top) if i else 0.0 for v, i in zip(values, inside, strict=True)]
    return [share / (sum(shares) + 1e-6) for share in shares]


def softmax_weights(values, inside):
    """A plain softmax of those inside; it does not change when the largest is taken off, so that exp stays finite."""
    top = max((v for v, i in zip(values, inside, strict=True) if i), default=0.0)
    shares = [math.exp(v - top) if i else 0.0 for v, i in zip(values, inside, strict=True)]
    return [share / (sum(shares) or 1.0) for share in shares]


def weighted_triplet(features, labels, weights=released_weights, gap=lambda difference: difference):
    """log(1 + exp(gap(weighted positives - weighted negatives))), mean over the anchors; AGW's loss, as released."""
    rows, result = features.tolist(), []
    for i, anchor in enumerate(rows):
        distances = [euclidean(anchor, row) for row in rows]
        negative = [label != labels[i] for label in labels]
        of_positives = weights(distances, [not other for other in negative])
        of_negatives = weights([-d for d in distances], negative)
        difference = sum((p - n) * d for p, n, d in zip(of_positives, of_negatives, distances, strict=True))
        result.append(float(np.logaddexp(0, gap(difference))) if any(negative) else 0.0)
    return mean(result)


def enhanced_squared_difference(features, labels):
    """CAJ's released code: as AGW's loss, of d^2 with the sign of the difference d, and at most 88."""
    return weighted_triplet(features, labels, gap=lambda d: math.copysign(min(d**2, 88.0), d))


def hetero_center_triplet(features, labels, margin):
    """Each identity's visible and infrared mean; positive: the other modality's, negatives: other identities'."""
    half, identities = len(labels) // 2, sorted(set(labels.tolist()))
    visible = {p: features[:half][labels[:half] == p].mean(0).tolist() for p in identities}
    infrared = {p: features[half:][labels[half:] == p].mean(0).tolist() for p in identities}
    result = []
    for p in identities:
        for anchor, other in ((visible[p], infrared[p]), (infrared[p], visible[p])):
            negatives = [euclidean(anchor, c[q]) for c in (visible, infrared) for q in identities if q != p]
            positive = euclidean(anchor, other)
            result.append(max(0.0, positive - min(negatives) + margin) if negatives else 0.0)
    return mean(result)


def msel(features, labels, distance=euclidean):
    """Eqs. 5-7."""
    half, total = len(labels) // 2, 0.0
    for p in sorted(set(labels.tolist())):
        visible = features[:half][labels[:half] == p].tolist()
        infrared = features[half:][labels[half:] == p].tolist()
        for own, other in ((visible, infrared), (infrared, visible)):
            for a, anchor in enumerate(own):
                intra = sum(distance(anchor, row) for i, row in enumerate(own) if i != a) / (len(own) - 1)  # Eq. 5
                cross = sum(distance(anchor, row) for row in other) / len(other)  # Eq. 6
                total += (intra - cross) ** 2
    return total / len(labels)  # Eq. 7


def dcl(features, labels, negatives="dynamic"):
    """Eqs. 8-10, with the hard and all variants of Table 3."""
    rows, numerator, denominator = features.tolist(), 0.0, 0.0
    for p in sorted(set(labels.tolist())):
        # Eq. 8, as offsets from one row, so that the centre of equal rows is that row exactly.
        members = features[labels == p]
        center = (members[0] + (members - members[0]).mean(0)).tolist()
        numerator += mean(euclidean(row, center) for row, label in zip(rows, labels, strict=True) if label == p)
        far = [euclidean(row, center) for row, label in zip(rows, labels, strict=True) if label != p]
        if not far:
            continue
        if negatives == "hard":
            denominator += min(far)
        elif negatives == "all":
            denominator += mean(far)
        else:
            nearer = [d for d in far if d < mean(far)]  # Eq. 9
            denominator += mean(nearer or far)
    return numerator / denominator if denominator else 0.0  # Eq. 10


class Loss(NamedTuple):
    """A loss of features, its arguments after features and labels, and the float64 loop (features, labels) -> value."""

    build: Callable[[ModuleType, int], Any]  # (ms_vireid.losses or torch_ref.losses, num_instances) -> the loss
    extra: tuple
    loop: Callable[[np.ndarray, np.ndarray], float]


def _progressive(stage, reduction="mean"):
    return Loss(
        lambda losses, k: losses.ProgressiveHardTripletLoss(0.1, reduction=reduction),
        (stage,),
        partial(progressive_triplet, stage=stage, margin=0.1, reduce={"mean": mean, "sum": sum}[reduction]),
    )


LOSSES = {
    "hard triplet": Loss(lambda losses, k: losses.HardTripletLoss(0.3), (), partial(hard_triplet, margin=0.3)),
    "intra": _progressive(1),
    "global": _progressive(2),
    "intra sum": _progressive(1, "sum"),
    "global sum": _progressive(2, "sum"),
    "wrt": Loss(lambda losses, k: losses.WeightedRegularizedTripletLoss(), (), weighted_triplet),
    "wrt softmax": Loss(
        lambda losses, k: losses.WeightedRegularizedTripletLoss("softmax"),
        (),
        partial(weighted_triplet, weights=softmax_weights),
    ),
    "esd": Loss(lambda losses, k: losses.EnhancedSquaredDifferenceLoss(), (), enhanced_squared_difference),
    "hct": Loss(
        lambda losses, k: losses.HeteroCenterTripletLoss(k, 0.3), (), partial(hetero_center_triplet, margin=0.3)
    ),
    "msel": Loss(lambda losses, k: losses.ModalitySharedEnhancementLoss(k), (), msel),
    "msel cosine": Loss(
        lambda losses, k: losses.ModalitySharedEnhancementLoss(k, distance="cosine"), (), partial(msel, distance=cosine)
    ),
    "dcl dynamic": Loss(lambda losses, k: losses.DiscriminativeCenterLoss(k), (), dcl),
    "dcl hard": Loss(lambda losses, k: losses.DiscriminativeCenterLoss(k, "hard"), (), partial(dcl, negatives="hard")),
    "dcl all": Loss(lambda losses, k: losses.DiscriminativeCenterLoss(k, "all"), (), partial(dcl, negatives="all")),
}


def batch_labels(identities, instances):
    """Labels [2PK] of a batch: the same identities in both halves, not sorted and not dense."""
    return np.tile(np.repeat(np.arange(identities)[::-1] * 3 + 1, instances), 2).astype(np.int32)


def random_batch(identities, instances, width, seed=0, identity_spread=1.0, modality_shift=1.0):
    """Features float32 [2PK, C] whose identities differ, overlap a little, and whose infrared half is shifted."""
    rng = np.random.default_rng(seed)
    labels = batch_labels(identities, instances)
    identities = identity_spread * rng.normal(size=(labels.max() + 1, width))
    features = identities[labels] + 0.7 * rng.normal(size=(len(labels), width))
    features[len(labels) // 2 :] += modality_shift * rng.normal(size=width)
    return features.astype(np.float32), labels


def one_identity_equal_batch():
    """One identity's rows are all the same, to the last bit, at a place where sums of them are rounded."""
    features, labels = random_batch(3, 3, 4, seed=5)
    features[labels == 1] = features[labels == 1][0]
    return features, labels


def identical_batch(identities=2, instances=3):
    """All rows the same; 0.1 and six rows: a plain mean of them would be rounded off the row itself."""
    labels = batch_labels(identities, instances)
    return np.tile(np.array([0.1, -0.7, 1.3], np.float32), (len(labels), 1)), labels


BATCHES = {
    "two identities, K = 2": lambda: random_batch(2, 2, 3, seed=1),
    "three identities, K = 2": lambda: random_batch(3, 2, 5, seed=2),
    "four identities, K = 3": lambda: random_batch(4, 3, 4, seed=3),
    "two identities, K = 4": lambda: random_batch(2, 4, 6, seed=4),
    "infrared shifted far": lambda: random_batch(3, 2, 4, seed=6, modality_shift=100.0),
    "one identity's rows equal": one_identity_equal_batch,
}


WRT_SCALES = (0.3, 1.0, 1.5, 2.0, 3.0)  # from distances of 3 to distances of 40


def wrt_batch(scale):
    """Features times `scale`, whose nearest negatives are about 9 away at scale 1."""
    features, labels = random_batch(4, 2, 16, seed=20, identity_spread=2.0, modality_shift=0.0)
    return np.float32(scale) * features, labels


def instances_of(labels):
    """K of a batch."""
    return int((labels == labels[0]).sum()) // 2


def identity_consistency(visible_logits, infrared_logits, labels):
    """MUN Eq. 11: -1/k times the sum of both classifiers' log probabilities of the label."""
    return mean(cross_entropies(visible_logits, labels)) + mean(cross_entropies(infrared_logits, labels))


def identity_alignment(rows, instances, margin, reduce=sum):
    """MUN Eq. 12, each bracket clipped at 0: rows [3, PK, C], visible, infrared and auxiliary, K = `instances`."""
    # As offsets from one row, so that the centre of equal rows is that row exactly.
    groups = rows.reshape(3, -1, instances, rows.shape[2])
    centers = groups[:, :, 0] + (groups - groups[:, :, :1]).mean(2)
    visible, infrared, auxiliary = centers.tolist()
    brackets = []
    for i, anchor in enumerate(auxiliary):
        positives = [euclidean(anchor, m[i]) for m in (visible, infrared)]
        negatives = [euclidean(anchor, m[q]) for m in (visible, infrared) for q in range(len(m)) if q != i]
        brackets.append(max(0.0, margin + max(positives) - min(negatives)) if negatives else 0.0)
    return reduce(brackets)


def bandwidth(x, y):
    """A quarter of the mean squared distance of different rows among both sets' rows."""
    rows = [*x, *y]
    pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
    return mean(euclidean(rows[i], rows[j]) ** 2 for i, j in pairs) / 4 + 1e-9


def squared_mmd(x, y, width):
    """MUN Eq. 16 by the kernel trick: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), five Gaussians."""

    def kernel(a, b):
        return sum(math.exp(-(euclidean(a, b) ** 2) / (width * 2**i)) for i in range(5))

    def average(first, second):
        return mean(kernel(a, b) for a in first for b in second)

    return average(x, x) + average(y, y) - 2 * average(x, y)


def modality_alignment(rows, instances, bridge=True, fixed=None):
    """MUN Eq. 15: rows as above. The bandwidths are those of `fixed`, so that a difference quotient leaves them as they
    are where the derivative is taken."""
    fixed = rows if fixed is None else fixed
    pairs = ((0, 2), (2, 1)) if bridge else ((0, 1),)
    terms = []
    for start in range(0, rows.shape[1], instances):
        own = slice(start, start + instances)
        for m, n in pairs:
            width = bandwidth(fixed[m, own].tolist(), fixed[n, own].tolist())
            terms.append(squared_mmd(rows[m, own].tolist(), rows[n, own].tolist(), width))
    return len(pairs) * mean(terms)  # a mean over the identities of a sum over the pairs


def prototypes(features, weights, beta, places, memory):
    """MUN Eqs. 13 and 14, one iteration: the prototypes [3, PK, C].

    Args:
        features: pooled, [3, PK, C]. weights: W_p, [3, C, C].
        places: with what each of the PK rows is accumulated: keys of `memory`.
        memory: prototypes of the iterations before, lists by (modality, place).
    """
    result = np.zeros_like(features)
    for modality, row in np.ndindex(*features.shape[:2]):
        z = features[modality, row].tolist()
        distilled = [sum(w * x for w, x in zip(line, z, strict=True)) for line in weights[modality].tolist()]
        before = memory.get((modality, places[row]))
        if before is None:  # Eq. 13
            result[modality, row] = distilled
        else:  # Eq. 14
            result[modality, row] = [beta * d + (1 - beta) * t for d, t in zip(distilled, before, strict=True)]
    return result


def remembered(prototypes, places, memory):
    """`memory` with one iteration's prototypes [3, PK, C]."""
    return memory | {(m, places[row]): prototypes[m, row].tolist() for m, row in np.ndindex(*prototypes.shape[:2])}


class ModalityLoss(NamedTuple):
    """A loss of rows [3, PK, C], visible, infrared and auxiliary, and its float64 loop (rows, K, fixed) -> value, where
    `fixed` are the rows at which everything that no gradient passes through is taken."""

    build: Callable[[ModuleType, int], Any]  # as in `Loss`; called with the three separately
    loop: Callable[..., float]


MODALITY_LOSSES = {
    "ia": ModalityLoss(
        lambda losses, k: losses.IdentityAlignmentLoss(k), lambda rows, k, fixed=None: identity_alignment(rows, k, 0.55)
    ),
    "ia mean": ModalityLoss(
        lambda losses, k: losses.IdentityAlignmentLoss(k, 2.5, reduction="mean"),
        lambda rows, k, fixed=None: identity_alignment(rows, k, 2.5, mean),
    ),
    "ma": ModalityLoss(lambda losses, k: losses.ModalityAlignmentLoss(k), modality_alignment),
    "ma without bridge": ModalityLoss(
        lambda losses, k: losses.ModalityAlignmentLoss(k, bridge=False), partial(modality_alignment, bridge=False)
    ),
}


def modality_batch(identities, instances, width, seed=0, **shifts):
    """Rows float32 [3, PK, C]: the halves of `random_batch`, and auxiliary rows somewhere between them."""
    features, _ = random_batch(identities, instances, width, seed, **shifts)
    visible, infrared = features.reshape(2, -1, width)
    rng = np.random.default_rng([seed, 1])
    share = rng.uniform(size=(len(visible), 1))
    auxiliary = share * visible + (1 - share) * infrared + 0.3 * rng.normal(size=visible.shape)
    return np.stack((visible, infrared, auxiliary)).astype(np.float32)


def identical_modalities(identities=2, instances=3):
    """All rows the same, at a place where sums of them are rounded."""
    return identical_batch(identities, instances)[0][: identities * instances][None].repeat(3, axis=0)


MODALITY_BATCHES = {  # rows and K
    "two identities, K = 2": lambda: (modality_batch(2, 2, 3, seed=1), 2),
    "three identities, K = 2": lambda: (modality_batch(3, 2, 5, seed=2), 2),
    "four identities, K = 3": lambda: (modality_batch(4, 3, 4, seed=3), 3),
    "identities near each other": lambda: (modality_batch(3, 2, 4, seed=4, identity_spread=0.1), 2),
    "infrared shifted far": lambda: (modality_batch(3, 2, 4, seed=6, modality_shift=30.0), 2),
}
