"""Triplet losses: batch-hard, PMT's progressive form of it, and AGW's weighted regularised form.

In all of them an anchor without a negative (a batch of one identity) contributes 0, and no gradient.
"""

from mindspore import Tensor, nn, ops

from ms_vireid.command.arguments import number, require_choice
from ms_vireid.losses import distance as distances
from ms_vireid.losses import logarithms
from ms_vireid.losses.batch import check_batch, same_labels
from ms_vireid.losses.distance import masked_softmax
from ms_vireid.replaceable import replaceable

RELEASED_EPS = 1e-6  # added to the sum of WRT's weights, as released


def batch_hard(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The bracket of Eqs. 3 and 4 for each row as an anchor: features [n, C], labels [n] -> float32 [n].

    The positives include the anchor itself, which never changes the maximum: its distance is 0.
    """
    distance = distances.euclidean_distance(features, features)  # [n, n]
    return distances.hinge(distance, same_labels(labels, labels), margin)


class HardTripletLoss(nn.Cell):
    """Batch-hard triplet loss, Euclidean, mean over the anchors.

    margin: >= 0, in the features' unit. Call: features [n, C], labels int32 [n]. Returns a float32 scalar.
    Raises InputError for a negative margin, and ValueError for labels that do not match the features.
    """

    def __init__(self, margin: float):
        super().__init__()
        self.margin = number("margin", margin, 0)

    def construct(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels)
        return batch_hard(features, labels, self.margin).mean()


class ProgressiveHardTripletLoss(nn.Cell):
    """PHT, Eq. 2. Stage 1 is L_Intra (Eq. 3): each modality mines within itself. Stage 2 is L_Global (Eq. 4).

    margin: >= 0, in the features' unit. reduction: "mean" replaces each sum of Eqs. 3 and 4 by a mean over the anchors,
    so that L_Intra is a sum of two means; "sum" is as printed.
    Call: features [2PK, C], labels int32 [2PK], stage the Python int 1 or 2. Returns a float32 scalar.
    Raises InputError for a negative margin or another reduction, and ValueError for another stage, or rows that cannot
    be halved.
    """

    def __init__(self, margin: float, reduction: str = "mean"):
        super().__init__()
        require_choice("reduction", reduction, ("mean", "sum"))
        self.margin = number("margin", margin, 0)
        self.reduction = reduction

    def construct(self, features: Tensor, labels: Tensor, stage: int) -> Tensor:
        check_batch(features, labels, 2)
        if stage not in (1, 2):
            raise ValueError(f"stage must be 1 or 2, not {stage}")
        if stage == 2:
            return self.reduce(batch_hard(features, labels, self.margin))  # Eq. 4
        half = labels.shape[0] // 2
        visible = batch_hard(features[:half], labels[:half], self.margin)  # [PK]
        infrared = batch_hard(features[half:], labels[half:], self.margin)  # [PK]
        return self.reduce(visible) + self.reduce(infrared)  # Eq. 3

    def reduce(self, brackets: Tensor) -> Tensor:
        """[n] -> scalar."""
        return brackets.mean() if self.reduction == "mean" else brackets.sum()


class WeightedRegularizedTripletLoss(nn.Cell):
    """WRT of AGW: softplus(sum_p w_p d_p - sum_n w_n d_n), Euclidean, mean over the anchors.

    w_p weighs the distances to the positives (with the anchor), w_n the negated distances to the negatives; gradients
    pass through both. weights: "softmax", the paper's formula, or "released", as in AGW's code: exp(v - top) /
    (sum + 1e-6), where `top` is the largest value of the masked row: the furthest positive, but 0 for the negatives,
    from the masked entries. Beyond a distance of about 14 the 1e-6 outweighs the negatives' sum: their weights vanish,
    and the loss pulls all features together.
    Call: features [n, C], labels int32 [n]. Returns a float32 scalar.
    Raises InputError for other weights, and ValueError for labels that do not match the features.
    """

    def __init__(self, weights: str = "released"):
        super().__init__()
        require_choice("weights", weights, ("released", "softmax"))
        self.weights = weights

    def construct(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels)
        distance = distances.euclidean_distance(features, features)  # [n, n]
        positive = same_labels(labels, labels)  # [n, n]
        negative = ~positive
        if self.weights == "softmax":
            furthest_positive = (masked_softmax(distance, positive) * distance).sum(-1)  # [n]
            closest_negative = (masked_softmax(-distance, negative) * distance).sum(-1)  # [n]
        else:
            furthest_positive, closest_negative = weighted_pair(distance, positive)  # [n] each
        return (logarithms.softplus(furthest_positive - closest_negative) * negative.any(-1)).mean()


@replaceable("cuda")
def weighted_pair(distance: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted distances to the positives and to the negatives as in WRT's release, from distances [n, n] and the mask
    of the positives: [n] each."""
    of_positives = distance * positive  # [n, n]
    top = of_positives.amax(-1).unsqueeze(-1)  # [n, 1]
    furthest_positive = weighted_mean(distance, ops.exp(of_positives - top) * positive)  # [n]
    return furthest_positive, weighted_mean(distance, ops.exp(-distance) * ~positive)


def weighted_mean(values: Tensor, shares: Tensor) -> Tensor:
    """Means of the rows of values [n, m] weighted by shares [n, m], with `RELEASED_EPS` added to the sum: [n]."""
    return (values * shares).sum(-1) / (shares.sum(-1) + RELEASED_EPS)
