"""Squared maximum mean discrepancy between two sets of rows, with a sum of Gaussian kernels."""

import mindspore as ms
from mindspore import Tensor, ops

from ms_vireid.losses import distance
from ms_vireid.replaceable import replaceable

KERNELS = 5  # whose widths double; the middle one is the rows' mean squared distance
BANDWIDTH_FLOOR = 1e-9  # for rows that all coincide


@replaceable("cuda")
def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """|| mean of phi(x) - mean of phi(y) ||^2 of Eq. 16 (MUN) for each pair of sets: x [G, N, C], y [G, M, C] -> [G].

    The kernel is the sum of exp(-d^2 / (b 2^i)), i = 0 ... 4, with d the Euclidean distance and b a quarter of the mean
    d^2 between different rows of the N + M, so that the middle width is that mean. No gradient passes through b. (The
    paper specifies neither; widths in proportion to the mean and a fixed b are the usual form.) The estimate is the
    biased one, with means over all pairs, also of a row with itself: it is >= 0, and 0 for equal sets.

    Returns float32. Kernels of identical rows are 1, without gradient.
    """
    x, y = x.float(), y.float()
    within_x, within_y = distance.squared_distances(x, x), distance.squared_distances(y, y)  # [G, N, N], [G, M, M]
    between = distance.squared_distances(x, y)  # [G, N, M]
    bandwidth = ops.stop_gradient(mean_bandwidth(within_x, within_y, between)).reshape(-1, 1, 1, 1)  # [G, 1, 1, 1]
    widths = bandwidth * 2.0 ** ops.arange(KERNELS).to(ms.float32)  # [G, 1, 1, 5]
    return mean_kernel(within_x, widths) + mean_kernel(within_y, widths) - 2.0 * mean_kernel(between, widths)


def mean_kernel(squared: Tensor, widths: Tensor) -> Tensor:
    """Mean over all pairs of the sum of kernels: [G, N, M] and [G, 1, 1, 5] -> [G]."""
    return ops.exp(-squared.unsqueeze(-1) / widths).sum(-1).mean((1, 2))


def mean_bandwidth(within_x: Tensor, within_y: Tensor, between: Tensor) -> Tensor:
    """b of `squared_mmd` from the squared distances between its N + M rows -> [G]."""
    count = between.shape[1] + between.shape[2]
    total = within_x.sum((1, 2)) + within_y.sum((1, 2)) + 2.0 * between.sum((1, 2))
    return total / (count * (count - 1)) / 2.0 ** (KERNELS // 2) + BANDWIDTH_FLOOR
