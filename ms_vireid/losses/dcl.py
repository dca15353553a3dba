"""Discriminative Center Loss of PMT."""

from mindspore import Tensor, nn, ops

from ms_vireid.command.arguments import require_choice, whole_number
from ms_vireid.losses import distance as distances
from ms_vireid.losses.batch import check_batch, group_centers, same_labels


class DiscriminativeCenterLoss(nn.Cell):
    """DCL, Eqs. 8-10: mean distances of rows to their identity's centre, over those of negatives to it.

    negatives: the rows of other identities that count for a centre (Table 3):
        "dynamic": the mean of those nearer than the mean negative distance of Eq. 9, or if none is nearer, because all
            are equally far, the mean of all;
        "hard": the nearest; several that are equally near share its gradient;
        "all": the mean of all.
    If the denominator of Eq. 10 is 0, the loss is defined as 0, with gradient 0: all features are identical, or the
    batch holds one identity, or every chosen negative lies exactly on the centre. The gradient of a distance of 0 is 0.
    The threshold only selects: no gradient passes through it.

    num_instances: K >= 1. Call: features [2PK, C], labels int32 [2PK]. Returns a float32 scalar.
    Raises InputError for wrong arguments, and ValueError for rows that are not a multiple of 2K.
    """

    def __init__(self, num_instances: int, negatives: str = "dynamic"):
        super().__init__()
        require_choice("negatives", negatives, ("dynamic", "hard", "all"))
        self.num_instances = whole_number("num_instances", num_instances, 1)
        self.negatives = negatives

    def construct(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels, 2 * self.num_instances)
        instances, width = self.num_instances, features.shape[1]
        halves = features.float().reshape(2, -1, instances, width)  # [2, P, K, C]
        groups = halves.swapaxes(0, 1).reshape(-1, 2 * instances, width)  # [P, 2K, C]
        centers = group_centers(groups)  # [P, C], Eq. 8
        center_labels = labels.reshape(2, -1, instances)[0, :, 0]  # [P]

        distance = distances.euclidean_distance(centers, features)  # [P, 2PK]
        positive = same_labels(center_labels, labels)  # [P, 2PK]
        numerator = distances.masked_mean(distance, positive).sum()
        denominator = self.negative_distance(distance, ~positive).sum()
        defined = denominator > 0
        return ops.where(defined, numerator / ops.where(defined, denominator, 1.0), 0.0)  # Eq. 10

    def negative_distance(self, distance: Tensor, negative: Tensor) -> Tensor:
        """Each centre's distance to its chosen negatives: distances and mask [P, 2PK] -> [P]."""
        if self.negatives == "hard":
            return distances.masked_min(distance, negative)
        if self.negatives == "all":
            return distances.masked_mean(distance, negative)
        return distances.nearer_mean(distance, negative)  # Eq. 9
