"""Distances between two sets of rows, and reductions of a distance matrix over boolean masks.

Distances are float32 whatever the features are. Everything here has a finite gradient everywhere: where a
derivative does not exist it is defined, and the definition is in the docstring.
"""

import mindspore as ms
from mindspore import ops

LARGE = 1e30  # takes an entry out of a maximum, minimum or softmax; finite, so that LARGE * 0 is 0 and not nan
_TINY = 2.0**-126  # the smallest normal float32: to a processor's threads that flush smaller ones they are 0


def safe_sqrt(squared):
    """Square root of values >= 0; values below float32's normal range count as 0, with derivative 0 (not infinity)."""
    positive = squared >= _TINY
    return ops.where(positive, ops.sqrt(ops.where(positive, squared, 1.0)), 0.0)


def euclidean_distance(x, y):
    """Euclidean distances of the rows of x [n, C] and y [m, C]: float32 [n, m].

    Taken from the differences, not from the Gram matrix: identical rows are exactly 0 apart, the matrix of a set with
    itself is exactly symmetric, and near rows lose no digits. The gradient of a distance of 0 is 0.
    """
    x, y = x.astype(ms.float32), y.astype(ms.float32)
    difference = ops.expand_dims(x, 1) - ops.expand_dims(y, 0)  # [n, m, C]
    return safe_sqrt(ops.square(difference).sum(-1))  # [n, m]


def unit_rows(x):
    """Rows divided by their Euclidean norms, [n, C] -> [n, C]; a zero row stays zero and passes no gradient."""
    norm = safe_sqrt(ops.square(x).sum(-1, keepdims=True))  # [n, 1]
    nonzero = norm > 0
    return ops.where(nonzero, x / ops.where(nonzero, norm, 1.0), 0.0)


def cosine_distance(x, y):
    """1 - cos of the rows of x [n, C] and y [m, C]: float32 [n, m], 0 to 2.

    A zero row has no direction: its distance to every row is 1, and its gradient 0.
    """
    return 1.0 - ops.matmul(unit_rows(x.astype(ms.float32)), unit_rows(y.astype(ms.float32)).T)  # [n, m]


def masked_max(values, mask):
    """Row maxima of values [n, m] over a boolean mask [n, m]: [n]; ties share the gradient evenly; 0 over no entry."""
    return ops.amax(ops.where(mask, values, -LARGE), -1) * mask.any(-1)


def masked_min(values, mask):
    """Row minima of values [n, m] over a boolean mask [n, m]: [n]; ties share the gradient evenly; 0 over no entry."""
    return ops.amin(ops.where(mask, values, LARGE), -1) * mask.any(-1)


def masked_mean(values, mask):
    """Row means of values [n, m] over a boolean mask [n, m]: [n]; 0 over no entry."""
    mask = mask.astype(ms.float32)
    return (values * mask).sum(-1) / ops.maximum(mask.sum(-1), 1.0)


def masked_softmax(values, mask):
    """Row-wise softmax of values [n, m] over a boolean mask [n, m]: [n, m], 0 outside the mask and in rows without."""
    return ops.softmax(ops.where(mask, values, -LARGE), -1) * mask
