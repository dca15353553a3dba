"""Modality-Shared Enhancement Loss of PMT."""

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

        row = ops.arange(labels.shape[0])  # [2PK]
        infrared = row >= labels.shape[0] // 2  # [2PK]
        same_modality = same_labels(infrared, infrared)  # [2PK, 2PK]
        same_identity = ops.logical_and(same_labels(labels, labels), ~same_labels(row, row))  # itself excluded
        intra_mask = ops.logical_and(same_identity, same_modality)
        cross_mask = ops.logical_and(same_identity, ~same_modality)

        intra = (distance * intra_mask).sum(-1) / (self.num_instances - 1)  # [2PK], Eq. 5
        cross = (distance * cross_mask).sum(-1) / self.num_instances  # [2PK], Eq. 6
        return ops.square(intra - cross).mean()  # Eq. 7
