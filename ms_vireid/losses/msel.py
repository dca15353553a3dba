"""Modality-Shared Enhancement Loss of PMT."""

from functools import cache

import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.command.arguments import require_choice, whole_number
from ms_vireid.losses import distance as distances
from ms_vireid.losses.batch import check_batch, same_labels
from ms_vireid.replaceable import replaceable


class ModalitySharedEnhancementLoss(nn.Cell):
    """MSEL, Eqs. 5-7: a row's mean distance to its identity should be the same within and across modalities.

    num_instances: K >= 2, as Eq. 5 divides by K - 1. distance: "euclidean" or "cosine" (1 - cos).
    Call: features [2PK, C], labels int32 [2PK]. Returns a float32 scalar.
    Raises InputError for wrong arguments, and ValueError for rows that are not a multiple of 2K.
    """

    def __init__(self, num_instances: int, distance: str = "euclidean"):
        super().__init__()
        require_choice("distance", distance, ("euclidean", "cosine"))
        self.num_instances = whole_number("num_instances", num_instances, 2)
        self.distance = distance

    @replaceable("graph")
    def construct(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels, 2 * self.num_instances)
        distance = self.pairwise(features)  # [2PK, 2PK]

        same_identity = same_labels(labels, labels)  # [2PK, 2PK]
        same_modality, other_modality = _modality_pairs(labels.shape[0])
        intra_mask = ops.logical_and(same_identity, same_modality)
        cross_mask = ops.logical_and(same_identity, other_modality)

        intra = (distance * intra_mask).sum(-1) / (self.num_instances - 1)  # [2PK], Eq. 5
        cross = (distance * cross_mask).sum(-1) / self.num_instances  # [2PK], Eq. 6
        return ops.square(intra - cross).mean()  # Eq. 7

    def pairwise(self, features: Tensor) -> Tensor:
        if self.distance == "cosine":
            return distances.cosine_distance(features, features)
        return distances.euclidean_distance(features, features)


@ops.constexpr
@cache
def _modality_pairs(rows: int) -> tuple[Tensor, Tensor]:
    """Which pairs of 2PK rows have the same modality, without a row and itself, and which have not: bool [2PK, 2PK]."""
    infrared = np.arange(rows) >= rows // 2
    same = infrared[:, np.newaxis] == infrared
    return Tensor(same & ~np.eye(rows, dtype=bool)), Tensor(~same)
