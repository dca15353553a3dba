"""The enhanced squared difference of CAJ (Ye et al., ICCV 2021)."""

from mindspore import Tensor, nn, ops

from ms_vireid.losses import distance as distances
from ms_vireid.losses import logarithms, triplet
from ms_vireid.losses.batch import check_batch, same_labels

LARGEST = 88.0  # limit of the square, as released: exp(88) is still a float32


class EnhancedSquaredDifferenceLoss(nn.Cell):
    """softplus(s (p - n)^2), with p and n the weighted positive and negative distances of WRT as released with AGW, and
    s the sign of p - n: 1 where p is larger, -1 elsewhere. Euclidean, mean over the anchors.

    Large errors weigh more than in WRT, and pairs that are far on the right side weigh less. No gradient passes through
    s, nor through a square above `LARGEST`, as released. An anchor without a negative contributes 0.
    Call: features [n, C], labels int32 [n]. Returns a float32 scalar.
    Raises ValueError for labels that do not match the features.
    """

    def __init__(self):
        super().__init__()

    def construct(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels)
        positive = same_labels(labels, labels)  # [n, n]
        distance = distances.euclidean_distance(features, features)  # [n, n]
        furthest_positive, closest_negative = triplet.weighted_pair(distance, positive)  # [n] each
        difference = furthest_positive - closest_negative
        square = ops.square(difference).clamp(max=LARGEST)
        signed = ops.where(difference > 0, square, -square)
        return (logarithms.softplus(signed) * (~positive).any(-1)).mean()
