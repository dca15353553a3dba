"""Squared maximum mean discrepancy between two sets of rows, with a sum of Gaussian kernels."""

import mindspore as ms
from mindspore import ops

from ms_vireid.losses.distance import squared_distances
from ms_vireid.programs.operators import ByHand, constant, mean, total

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
    x, y = x.astype(ms.float32), y.astype(ms.float32)
    within_x, within_y, between = squared_distances(x, x), squared_distances(y, y), squared_distances(x, y)
    distances = ops.stop_gradient(within_x), ops.stop_gradient(within_y), ops.stop_gradient(between)
    bandwidth = mean_bandwidth(*distances).reshape(-1, 1, 1, 1)  # [G, 1, 1, 1]
    widths = bandwidth * constant(tuple(2.0**i for i in range(KERNELS)), ms.float32)  # [G, 1, 1, 5]
    within = ops.add(mean_kernel(within_x, widths), mean_kernel(within_y, widths))
    return ops.sub(within, constant(2.0, ms.float32) * mean_kernel(between, widths))


class _MeanKernel(ByHand):
    """Mean over all pairs of the sum of kernels: [G, N, M] and [G, 1, 1, 5] -> [G]. Nobody needs
    the derivative of the widths."""

    def construct(self, squared, widths):
        return mean(total(self.kernels(squared, widths), -1), (1, 2))

    def derivative(self, squared, widths, _out, gradient):
        slope = total(self.kernels(squared, widths) / widths, -1)  # [G, N, M]
        share = gradient * constant(-1.0 / (squared.shape[1] * squared.shape[2]), ms.float32)
        return slope * share.reshape(-1, 1, 1), ops.zeros_like(widths)

    def kernels(self, squared, widths):
        return ops.exp(-ops.expand_dims(squared, -1) / widths)  # [G, N, M, 5]


mean_kernel = _MeanKernel()


def mean_bandwidth(within_x, within_y, between):
    """b of `squared_mmd` from the squared distances of its N and M rows to each other -> [G]."""
    count = between.shape[1] + between.shape[2]
    within = ops.add(total(within_x, (1, 2)), total(within_y, (1, 2)))
    everything = ops.add(within, constant(2.0, ms.float32) * total(between, (1, 2)))
    pairs = constant(float(count * (count - 1)), ms.float32)
    mean_distance = everything / pairs / constant(2.0 ** (KERNELS // 2), ms.float32)
    return ops.add(mean_distance, constant(BANDWIDTH_FLOOR, ms.float32))
