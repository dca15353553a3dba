"""The losses as slow, obvious loops in float64, written from the printed equations, and their numeric gradients.

Nothing here imports the toolbox. Features are [2PK, C] float64 arrays, visible half first; labels are [2PK].
Where an equation is undefined (no negative, denominator 0) the loops state the definition the toolbox promises.
"""

import math

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


def identity_loss(logits, labels):
    """Cross entropy of the visible rows plus that of the infrared rows."""
    rows, half = logits.tolist(), len(labels) // 2
    losses = [
        math.log(sum(math.exp(z - max(row)) for z in row)) + max(row) - row[label]
        for row, label in zip(rows, labels, strict=True)
    ]
    return mean(losses[:half]) + mean(losses[half:])


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


def weighted_regularized_triplet(features, labels):
    """AGW's released loss: log(1 + exp(weighted positives - weighted negatives)), mean over the anchors."""
    rows, result = features.tolist(), []
    for i, anchor in enumerate(rows):
        positives = [euclidean(anchor, row) for j, row in enumerate(rows) if labels[j] == labels[i]]
        negatives = [euclidean(anchor, row) for j, row in enumerate(rows) if labels[j] != labels[i]]
        if not negatives:
            result.append(0.0)
            continue
        # A softmax does not change when a constant is taken from its arguments: the largest, so that exp stays finite.
        positive_weights = [math.exp(d - max(positives)) for d in positives]
        negative_weights = [math.exp(min(negatives) - d) for d in negatives]
        furthest = sum(w * d for w, d in zip(positive_weights, positives, strict=True)) / sum(positive_weights)
        closest = sum(w * d for w, d in zip(negative_weights, negatives, strict=True)) / sum(negative_weights)
        result.append(float(np.logaddexp(0, furthest - closest)))
    return mean(result)


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
