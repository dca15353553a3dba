"""MUN's losses of three modalities: identity consistency, identity alignment and modality alignment.

v, r and a are the visible, infrared and auxiliary half-batches [PK, ...], identity-major and in the same order: row i
of all three is of one identity, and a's row i was made from v's and r's.
"""

from functools import cache

import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.command.arguments import number, require_choice, require_switch, whole_number
from ms_vireid.losses import distance as distances
from ms_vireid.losses import logarithms, mmd
from ms_vireid.losses.batch import check_batch, group_centers


def check_modalities(modalities: tuple[Tensor, ...], multiple: int = 1) -> None:
    """Raise ValueError unless all of v, r and a have one shape [n, C], n > 0 a multiple of `multiple`."""
    shapes = [tuple(rows.shape) for rows in modalities]
    if len(set(shapes)) > 1:
        raise ValueError(f"visible, infrared and auxiliary rows must have one shape, not {', '.join(map(str, shapes))}")
    if shapes[0][0] == 0 or shapes[0][0] % multiple != 0:
        raise ValueError(f"the number of rows must be a positive multiple of {multiple}, not {shapes[0][0]}")


class IdentityConsistencyLoss(nn.Cell):
    """L_idc, Eq. 11 (MUN): both classifiers should know the auxiliary features' identities.

    Gradients reach both the classifiers and the features: the paper speaks of updating the classifiers and does not say
    that either is fixed.
    Call: visible_logits [n, N] = C_v(a), infrared_logits [n, N] = C_r(a), labels int32 [n]. Returns a float32 scalar.
    Raises ValueError if the labels or the two classifiers' rows do not match.
    """

    def construct(self, visible_logits: Tensor, infrared_logits: Tensor, labels: Tensor) -> Tensor:
        check_batch(visible_logits, labels)
        check_batch(infrared_logits, labels)
        of_visible = logarithms.cross_entropy(visible_logits.float(), labels)
        return of_visible + logarithms.cross_entropy(infrared_logits.float(), labels)


class IdentityAlignmentLoss(nn.Cell):
    """L_ia, Eq. 12 (MUN): an auxiliary centre should be nearer to the visible and infrared centres of its identity than
    to those of any other.

    An identity's bracket is alpha plus the distance of the further positive minus that of the nearest negative,
    Euclidean between means of pooled features. It is clipped at 0: the paper prints no clipping, but calls it "a
    triplet-metric manner". Equal distances share the gradient. A single identity contributes 0.

    num_instances: K >= 1. margin: alpha >= 0, in the features' unit. reduction: over the identities, "sum" as printed
    or "mean".
    Call: visible, infrared, auxiliary, each [PK, C]. Returns a float32 scalar.
    Raises InputError for wrong arguments, and ValueError for shapes that differ, or rows that are not a multiple of K.
    """

    def __init__(self, num_instances: int, margin: float = 0.55, reduction: str = "sum"):
        super().__init__()
        require_choice("reduction", reduction, ("sum", "mean"))
        self.num_instances = whole_number("num_instances", num_instances, 1)
        self.margin = number("margin", margin, 0)
        self.reduction = reduction

    def construct(self, visible: Tensor, infrared: Tensor, auxiliary: Tensor) -> Tensor:
        check_modalities((visible, infrared, auxiliary), self.num_instances)
        rows = ops.cat((visible, infrared, auxiliary)).float()  # [3PK, C]
        centers = group_centers(rows.reshape(-1, self.num_instances, rows.shape[1]))  # [3P, C]
        identities = centers.shape[0] // 3
        centers, others = centers[2 * identities :], centers[: 2 * identities]  # a's, and v's and r's
        distance = distances.euclidean_distance(centers, others)  # [P, 2P]
        brackets = distances.hinge(distance, _same(identities), self.margin)  # [P], Eq. 12
        return brackets.sum() if self.reduction == "sum" else brackets.mean()


@ops.constexpr
@cache
def _same(identities: int) -> Tensor:
    """Which of v's and r's centres are of each identity of a: bool [P, 2P]."""
    return Tensor(np.tile(np.eye(identities, dtype=bool), 2))


class ModalityAlignmentLoss(nn.Cell):
    """L_ma, Eqs. 15 and 16 (MUN): an identity's rows should have the same distribution in all three modalities. It is
    the mean over the identities of `squared_mmd`, of prototypes or pooled features.

    num_instances: K >= 1. bridge: compare v with a and a with r, as in Eq. 15; without it (Table 3) v with r.
    Call: visible, infrared, auxiliary, each [PK, C]. Returns a float32 scalar.
    Raises InputError for wrong arguments, and ValueError for shapes that differ, or rows that are not a multiple of K.
    """

    def __init__(self, num_instances: int, bridge: bool = True):
        super().__init__()
        self.num_instances = whole_number("num_instances", num_instances, 1)
        require_switch("bridge", bridge)
        self.bridge = bridge

    def construct(self, visible: Tensor, infrared: Tensor, auxiliary: Tensor) -> Tensor:
        check_modalities((visible, infrared, auxiliary), self.num_instances)
        groups = (-1, self.num_instances, visible.shape[1])  # [P, K, C]
        v, r, a = visible.reshape(groups), infrared.reshape(groups), auxiliary.reshape(groups)
        if not self.bridge:
            return mmd.squared_mmd(v, r).mean()
        return (mmd.squared_mmd(v, a) + mmd.squared_mmd(a, r)).mean()
