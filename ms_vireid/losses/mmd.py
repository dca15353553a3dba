"""Squared maximum mean discrepancy between two sets of rows, with a sum of Gaussian kernels."""

import mindspore as ms
import numpy as np
from mindspore import ops

KERNELS = 5  # of widths that double, the middle one as wide as the rows are apart in the mean
BANDWIDTH_FLOOR = 1e-9  # of rows that all coincide


def squared_mmd(x, y):
    """|| mean of phi(x) - mean of phi(y) ||^2 of Eq. 16 (MUN) for each pair of sets: x [G, N, C], y [G, M, C] -> [G].

    The kernel is the sum of exp(-d^2 / (b 2^i)), i = 0 ... 4, with d the Euclidean distance and b a quarter of the
    mean d^2 of different rows of the set's N + M, so that the middle width is that mean; no gradient passes through b
    (widths in proportion to the mean, and b held fixed, are the usual form; the paper gives neither). The estimate is
    the biased one, each mean taken over all pairs with a row's own included: it is >= 0, and 0 for equal sets.

    Returns float32, the kernels of identical rows being 1 without gradient.
    """
    rows = ops.concat((x, y), axis=1).astype(ms.float32)  # [G, N + M, C]
    squared = ops.square(rows[:, :, None] - rows[:, None]).sum(-1)  # [G, N + M, N + M]
    bandwidth = ops.stop_gradient(mean_bandwidth(squared))  # [G]
    widths = ms.Tensor(2.0 ** np.arange(KERNELS), ms.float32)  # [5]
    exponents = squared[..., None] / (bandwidth[:, None, None, None] * widths)  # [G, N + M, N + M, 5]
    kernel = ops.exp(-exponents).sum(-1)  # [G, N + M, N + M]
    shares = ms.Tensor([1.0 / x.shape[1]] * x.shape[1] + [-1.0 / y.shape[1]] * y.shape[1], ms.float32)  # [N + M]
    return (kernel * shares[:, None] * shares).sum((1, 2))


def mean_bandwidth(squared):
    """b of `squared_mmd` from the squared distances of n rows to each other: [G, n, n] -> [G]."""
    count = squared.shape[1]
    return squared.sum((1, 2)) / (count * (count - 1)) / 2.0 ** (KERNELS // 2) + BANDWIDTH_FLOOR
