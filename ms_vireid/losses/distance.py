"""Distances between two sets of rows, and reductions of a distance matrix over boolean masks.

Distances are float32 whatever the features are. Every function has a finite gradient everywhere: where no derivative
exists, the docstring defines one.
"""

from mindspore import Tensor, ops

from ms_vireid.replaceable import replaceable

LARGE = 1e30  # takes an entry out of a maximum, minimum or softmax; finite, so that LARGE * 0 is 0 and not nan
TINY = 2.0**-126  # the smallest normal float32; smaller values may be flushed to 0


@replaceable("graph")
def safe_sqrt(squared: Tensor) -> Tensor:
    """Square root of values >= 0; values below float32's normal range count as 0, with derivative 0 (not infinity)."""
    positive = squared >= TINY
    return ops.where(positive, ops.sqrt(ops.where(positive, squared, 1.0)), 0.0)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs of rows: [..., n, C] and [..., m, C] -> [..., n, m]."""
    difference = x.unsqueeze(-2) - y.unsqueeze(-3)
    return (difference * difference).sum(-1)


@replaceable("cuda")
def euclidean_distance(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances of the rows of x [n, C] and y [m, C]: float32 [n, m].

    They are computed from differences, not from the Gram matrix: identical rows are exactly 0 apart, a set has an
    exactly symmetric matrix, and near rows lose no digits. The gradient of a distance of 0 is 0.
    """
    return safe_sqrt(squared_distances(x.float(), y.float()))  # [n, m]


def unit_rows(x: Tensor) -> Tensor:
    """Divide rows by their Euclidean norms, [n, C] -> [n, C]; a zero row stays zero and passes no gradient."""
    norm = safe_sqrt(ops.square(x).sum(-1)).unsqueeze(1)  # [n, 1]
    nonzero = norm > 0
    return ops.where(nonzero, x / ops.where(nonzero, norm, 1.0), 0.0)


def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    """1 - cos of the rows of x [n, C] and y [m, C]: float32 [n, m], 0 to 2.

    A zero row has no direction: its distance to every row is 1, and its gradient 0.
    """
    return 1.0 - unit_rows(x.float()) @ unit_rows(y.float()).T  # [n, m]


def masked_max(values: Tensor, mask: Tensor) -> Tensor:
    """Row maxima of values [n, m] over a boolean mask [n, m]: [n]; ties share the gradient evenly; 0 over no entry."""
    return ops.where(mask, values, -LARGE).amax(-1) * mask.any(-1)


def masked_min(values: Tensor, mask: Tensor) -> Tensor:
    """Row minima of values [n, m] over a boolean mask [n, m]: [n]; ties share the gradient evenly; 0 over no entry."""
    return ops.where(mask, values, LARGE).amin(-1) * mask.any(-1)


@replaceable("cuda")
def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Row means of values [n, m] over a boolean mask [n, m]: [n]; 0 over no entry."""
    mask = mask.float()
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)


@replaceable("cuda")
def nearer_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Row means of those values [n, m] that are below the row's mean over a boolean mask [n, m]; of all that the mask
    has if none is below: [n]. The mean that they are compared with passes no gradient."""
    nearer = ops.logical_and(mask, values < masked_mean(values, mask).unsqueeze(1))  # [n, m]
    none_nearer = ~nearer.any(-1)  # [n]
    return masked_mean(values, ops.logical_or(nearer, ops.logical_and(mask, none_nearer.unsqueeze(1))))


@replaceable("cuda")
def hinge(distance: Tensor, positive: Tensor, margin: float) -> Tensor:
    """The furthest positive's distance less the nearest negative's plus the margin, but at least 0, of each row of
    distances [n, m] with a boolean mask of the positives [n, m]: [n]. Equal distances share the gradient evenly; a row
    without negatives is 0, with gradient 0."""
    negative = ~positive
    return ops.relu(masked_max(distance, positive) - masked_min(distance, negative) + margin) * negative.any(-1)


def masked_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """Row-wise softmax of values [n, m] over a boolean mask [n, m]: [n, m], 0 outside the mask and in rows without."""
    return ops.softmax(ops.where(mask, values, -LARGE), -1) * mask
