"""Distances of losses, and what reduces them, by the CUDA kernels."""

from mindspore import Tensor, ops

from ms_vireid.backends.cuda.operators import Differentiable, differentiated
from ms_vireid.losses import distance, mmd, triplet
from ms_vireid.losses.stage import StageLoss
from ms_vireid.replaceable import Replacement

_distances, _masked_mean, _hinge, _weighted_pair, _mean_discrepancies, _weighted_sum = map(
    Differentiable, ("distances", "masked_mean", "hinge", "weighted_pair", "mean_discrepancies", "weighted_sum")
)


def euclidean_distance(x: Tensor, y: Tensor) -> Tensor:
    return differentiated(_distances, x.float(), y.float(), root=1)[0]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return differentiated(_masked_mean, values, mask, nearer=0)[0]


def nearer_mean(values: Tensor, mask: Tensor) -> Tensor:
    return differentiated(_masked_mean, values, mask, nearer=1)[0]


def hinge(distance: Tensor, positive: Tensor, margin: float) -> Tensor:
    return differentiated(_hinge, distance, positive, margin=margin)[0]


def weighted_pair(distance: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    return differentiated(_weighted_pair, distance, positive, eps=triplet.RELEASED_EPS)


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """All distances of both sets at once."""
    rows = ops.cat((x.float(), y.float()), 1)  # [G, N + M, C]
    squared = differentiated(_distances, rows, rows, root=0)[0]
    numbers = {"first": x.shape[1], "kernels": mmd.KERNELS, "floor": mmd.BANDWIDTH_FLOOR}
    return differentiated(_mean_discrepancies, squared, **numbers)[0]


def total(self: StageLoss, values: tuple[Tensor, ...]) -> Tensor:
    terms = ()
    for value in values:
        terms += (value.reshape(1),)
    return differentiated(_weighted_sum, *terms, weights=self.weights)[0].reshape(())


# Costs: launches of a step without / with the first five rows, PMT 629 for 529, AGW 478 for 411, MUN 689 for 612; the
# next, MUN 827 for 612; the last, in float16: MUN 678 for 670, PMT 549 for 545.
TABLE = {
    distance.euclidean_distance: Replacement(euclidean_distance, "with the rows below AGW: 67 launches more"),
    distance.masked_mean: Replacement(masked_mean),
    distance.nearer_mean: Replacement(nearer_mean),
    distance.hinge: Replacement(hinge),
    triplet.weighted_pair: Replacement(weighted_pair),
    mmd.squared_mmd: Replacement(squared_mmd, "MUN: 827 launches for 612"),
    StageLoss.total: Replacement(total, "in float16 MUN: 8 launches more"),
}
