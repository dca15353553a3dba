"""MUN's losses of three modalities: identity consistency, identity alignment and modality alignment.

v, r and a are the visible, infrared and auxiliary half-batches [PK, ...], identity-major and in the same order: row i
of all three is of one identity, and a's row i was made from v's and r's.
"""

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.losses.batch import check_batch, check_choice, check_margin, check_num_instances, group_centers
from ms_vireid.losses.distance import euclidean_distance, masked_max, masked_min
from ms_vireid.losses.mmd import squared_mmd
from ms_vireid.programs.operators import any_along, constant, cross_entropy, mean, total
from ms_vireid.programs.tensors import Joined


def check_modalities(modalities, multiple=1):
    """Raise ValueError unless all of v, r and a have one shape [n, C], n > 0 a multiple of `multiple`."""
    shapes = [tuple(rows.shape) for rows in modalities]
    if len(set(shapes)) > 1:
        raise ValueError(f"visible, infrared and auxiliary rows must have one shape, not {', '.join(map(str, shapes))}")
    if shapes[0][0] == 0 or shapes[0][0] % multiple != 0:
        raise ValueError(f"the number of rows must be a positive multiple of {multiple}, not {shapes[0][0]}")


class IdentityConsistencyLoss(nn.Cell):
    """L_idc, Eq. 11 (MUN): both classifiers should know the auxiliary features' identities.

    Gradients reach the classifiers and the features: the paper speaks of updating the classifiers, and says of neither
    that it is held fixed.
    Call: visible_logits [n, N] = C_v(a), infrared_logits [n, N] = C_r(a), labels int32 [n]. Returns a float32 scalar.
    Raises ValueError if the labels or the two classifiers' rows do not match.
    """

    def construct(self, visible_logits, infrared_logits, labels):
        check_batch(visible_logits, labels)
        check_batch(infrared_logits, labels)
        return ops.add(cross_entropy(visible_logits, labels), cross_entropy(infrared_logits, labels))


class IdentityAlignmentLoss(nn.Cell):
    """L_ia, Eq. 12 (MUN): each auxiliary centre nearer to its own identity's visible and infrared centres than to any
    other identity's.

    An identity's bracket is alpha plus the further of its two positives minus the nearest of all negatives, Euclidean,
    between means of pooled features. It is clipped at 0: the print has no plus, but calls it "a triplet-metric manner".
    Equally far positives or negatives share the gradient. An identity without another contributes 0.

    num_instances: K >= 1. margin: alpha >= 0, in the features' unit. reduction: over the identities, "sum" as printed
    or "mean".
    Call: visible, infrared, auxiliary, each [PK, C]. Returns a float32 scalar.
    Raises ValueError for wrong arguments, shapes that differ, or rows that are not a multiple of K.
    """

    def __init__(self, num_instances, margin=0.55, reduction="sum"):
        super().__init__()
        check_num_instances(num_instances)
        check_margin(margin)
        check_choice("reduction", reduction, ("sum", "mean"))
        self.num_instances = num_instances
        self.margin = margin
        self.reduction = reduction
        self.joined = Joined(axis=0)

    def construct(self, visible, infrared, auxiliary):
        check_modalities((visible, infrared, auxiliary), self.num_instances)
        rows = self.joined((visible, infrared, auxiliary)).astype(ms.float32)  # [3, PK, C]
        centers = group_centers(rows.reshape(-1, self.num_instances, rows.shape[2]))  # [3P, C]
        identities = centers.shape[0] // 3
        distance = euclidean_distance(centers[2 * identities :], centers[: 2 * identities])  # [P, 2P], a to v and r
        own = _own_identity(identities)  # [P, 2P]
        other = ops.logical_not(own)
        bracket = ops.add(constant(self.margin, ms.float32), masked_max(distance, own))
        hinge = ops.relu(ops.sub(bracket, masked_min(distance, other)))  # [P], Eq. 12
        hinge = hinge * any_along(other, -1)
        return total(hinge) if self.reduction == "sum" else mean(hinge)


class ModalityAlignmentLoss(nn.Cell):
    """L_ma, Eqs. 15 and 16 (MUN): each identity's rows of the three modalities, prototypes or pooled features, should
    have one distribution; the mean over the identities of `squared_mmd`.

    num_instances: K >= 1. bridge: compare v with a and a with r, as Eq. 15; without it (Table 3) v with r alone.
    Call: visible, infrared, auxiliary, each [PK, C]. Returns a float32 scalar.
    Raises ValueError for wrong arguments, shapes that differ, or rows that are not a multiple of K.
    """

    def __init__(self, num_instances, bridge=True):
        super().__init__()
        check_num_instances(num_instances)
        self.num_instances = num_instances
        self.bridge = bridge

    def construct(self, visible, infrared, auxiliary):
        check_modalities((visible, infrared, auxiliary), self.num_instances)
        groups = (-1, self.num_instances, visible.shape[1])  # [P, K, C]
        v, r, a = visible.reshape(groups), infrared.reshape(groups), auxiliary.reshape(groups)
        if not self.bridge:
            return mean(squared_mmd(v, r))
        return mean(ops.add(squared_mmd(v, a), squared_mmd(a, r)))


@ops.constexpr
@cache
def _own_identity(identities):
    """Which of the centres of two modalities are an identity's: bool [P, 2P]."""
    return Tensor(np.tile(np.eye(identities, dtype=bool), 2))
