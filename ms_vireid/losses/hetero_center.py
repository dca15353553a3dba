"""Hetero-center triplet loss: batch-hard on one centre per identity and modality."""

from mindspore import Tensor, nn

from ms_vireid.command.arguments import number, whole_number
from ms_vireid.losses.batch import check_batch, group_centers
from ms_vireid.losses.triplet import batch_hard


class HeteroCenterTripletLoss(nn.Cell):
    """HCT (Liu, Tan and Zhou 2020): the batch-hard triplet loss of the 2P centres, Euclidean, mean over the centres.

    An anchor's positive is the centre of its identity in the other modality; its negatives are the other identities'
    centres in both. The loss of a batch with one identity is 0.
    num_instances: K >= 1. margin: >= 0, in the features' unit.
    Call: features [2PK, C], labels int32 [2PK]. Returns a float32 scalar.
    Raises InputError for wrong arguments, and ValueError for rows that are not a multiple of 2K.
    """

    def __init__(self, num_instances: int, margin: float):
        super().__init__()
        self.num_instances = whole_number("num_instances", num_instances, 1)
        self.margin = number("margin", margin, 0)

    def construct(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels, 2 * self.num_instances)
        groups = features.float().reshape(-1, self.num_instances, features.shape[1])  # [2P, K, C]
        centers = group_centers(groups)  # [2P, C]
        center_labels = labels.reshape(-1, self.num_instances)[:, 0]  # [2P]
        return batch_hard(centers, center_labels, self.margin).mean()
