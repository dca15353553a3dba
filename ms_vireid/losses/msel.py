"""Modality-Shared Enhancement Loss of PMT."""

from functools import cache

import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.losses.batch import check_batch, check_choice, check_num_instances, same_labels
from ms_vireid.losses.distance import cosine_distance, euclidean_distance


class ModalitySharedEnhancementLoss(nn.Cell):
    """MSEL, Eqs. 5-7: each row's mean distance to its identity should be the same within and across modalities.

    num_instances: K >= 2, as Eq. 5 divides by K - 1. distance: "euclidean" or "cosine" (1 - cos).
    Call: features [2PK, C], labels int32 [2PK]. Returns a float32 scalar.
    Raises ValueError for wrong arguments, or rows that are not a multiple of 2K.
    """

    def __init__(self, num_instances: int, distance: str = "euclidean"):
        super().__init__()
        check_num_instances(num_instances, 2)
        check_choice("distance", distance, ("euclidean", "cosine"))
        self.num_instances = num_instances
        self.distance = distance

    def construct(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels, 2 * self.num_instances)
        pairwise = cosine_distance if self.distance == "cosine" else euclidean_distance
        distance = pairwise(features, features)  # [2PK, 2PK]

        # One sum for both equations: two are 13 launches more of PMT's step, which has 1,217 on a GPU.
        shares = _shares(labels.shape[0], self.num_instances) * same_labels(labels, labels)  # [2PK, 2PK]
        difference = (distance * shares).sum(-1)  # [2PK], the mean of Eq. 5 less that of Eq. 6
        return (difference * difference).mean()  # Eq. 7


@ops.constexpr
@cache
def _shares(rows: int, num_instances: int) -> Tensor:
    """What a distance between two rows of one identity counts: 1 / (K - 1) within a modality, -1 / K across, and 0 of a
    row to itself: float32 [2PK, 2PK]."""
    infrared = np.arange(rows) >= rows // 2
    shares = np.where(infrared[:, np.newaxis] == infrared, 1 / (num_instances - 1), -1 / num_instances)
    np.fill_diagonal(shares, 0.0)
    return Tensor(shares.astype(np.float32))
