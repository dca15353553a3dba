"""Distances between two sets of rows, and reductions of a distance matrix over boolean masks.

Distances are float32 whatever the features are. Everything here has a finite gradient everywhere: where a
derivative does not exist it is defined, and the definition is in the docstring.
"""

import mindspore as ms
from mindspore import ops

from ms_vireid.programs.operators import ByHand, Softmax, any_along, constant, maximum, total, total_kept

LARGE = 1e30  # takes an entry out of a maximum, minimum or softmax; finite, so that LARGE * 0 is 0 and not nan
_TINY = 2.0**-126  # the smallest normal float32: to a processor's threads that flush smaller ones they are 0


def safe_sqrt(squared):
    """Square root of values >= 0; values below float32's normal range count as 0, with derivative 0 (not infinity)."""
    positive = squared >= constant(_TINY, ms.float32)
    return ops.where(positive, ops.sqrt(ops.where(positive, squared, _one())), _zero())


def _zero():
    return constant(0.0, ms.float32)


def _one():
    return constant(1.0, ms.float32)


class _SquaredDistances(ByHand):
    """Of all pairs of rows: [..., n, C] and [..., m, C] -> [..., n, m]."""

    def construct(self, x, y):
        difference = self.differences(x, y)
        return total(difference * difference, -1)

    def derivative(self, x, y, _out, gradient):
        along = self.differences(x, y) * ops.expand_dims(gradient * constant(2.0, ms.float32), -1)  # [..., n, m, C]
        return total(along, -2), -total(along, -3)

    def differences(self, x, y):
        return ops.sub(ops.expand_dims(x, -2), ops.expand_dims(y, -3))  # [..., n, m, C]


squared_distances = _SquaredDistances()


def euclidean_distance(x, y):
    """Euclidean distances of the rows of x [n, C] and y [m, C]: float32 [n, m].

    Taken from the differences, not from the Gram matrix: identical rows are exactly 0 apart, the matrix of a set with
    itself is exactly symmetric, and near rows lose no digits. The gradient of a distance of 0 is 0.
    """
    x, y = x.astype(ms.float32), y.astype(ms.float32)
    return safe_sqrt(squared_distances(x, y))  # [n, m]


def unit_rows(x):
    """Rows divided by their Euclidean norms, [n, C] -> [n, C]; a zero row stays zero and passes no gradient."""
    norm = safe_sqrt(total_kept(x * x, -1))  # [n, 1]
    nonzero = norm > _zero()
    return ops.where(nonzero, x / ops.where(nonzero, norm, _one()), _zero())


def cosine_distance(x, y):
    """1 - cos of the rows of x [n, C] and y [m, C]: float32 [n, m], 0 to 2.

    A zero row has no direction: its distance to every row is 1, and its gradient 0.
    """
    return 1.0 - ops.matmul(unit_rows(x.astype(ms.float32)), unit_rows(y.astype(ms.float32)).T)  # [n, m]


def masked_max(values, mask):
    """Row maxima of values [n, m] over a boolean mask [n, m]: [n]; ties share the gradient evenly; 0 over no entry."""
    return _masked_max(values, mask)


def masked_min(values, mask):
    """Row minima of values [n, m] over a boolean mask [n, m]: [n]; ties share the gradient evenly; 0 over no entry."""
    return -_masked_max(-values, mask)


class _MaskedMax(ByHand):
    """`masked_max`."""

    def construct(self, values, mask):
        found = maximum(ops.where(mask, values, constant(-LARGE, ms.float32)), -1)
        return ops.where(any_along(mask, -1), found, _zero())

    def derivative(self, values, mask, out, gradient):
        highest = ops.logical_and(mask, values == ops.expand_dims(out, -1))
        ties = total_kept(ops.where(highest, _one(), _zero()), -1)  # [n, 1]
        share = ops.expand_dims(gradient, -1) / ops.maximum(ties, _one())
        return ops.where(highest, share, _zero()), ops.zeros_like(mask)


_masked_max = _MaskedMax()


def masked_mean(values, mask):
    """Row means of values [n, m] over a boolean mask [n, m]: [n]; 0 over no entry."""
    weights = ops.where(mask, _one(), _zero())
    return total(values * weights, -1) / ops.maximum(total(weights, -1), _one())


def masked_softmax(values, mask):
    """Row-wise softmax of values [n, m] over a boolean mask [n, m]: [n, m], 0 outside the mask and in rows without."""
    return _softmax(ops.where(mask, values, constant(-LARGE, ms.float32))) * mask


_softmax = Softmax(-1)
