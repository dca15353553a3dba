"""Triplet losses: batch-hard, PMT's progressive form of it, and AGW's weighted regularised form.

In all of them an anchor without a negative (a batch of one identity) contributes 0, and no gradient.
"""

import torch
from torch import nn
from torch.nn import functional

from torch_ref.losses.batch import check_batch, check_choice, check_margin, same_labels
from torch_ref.losses.distance import (
    euclidean_distance,
    masked_max,
    masked_min,
    masked_softmax,
    released_softmax,
)


def batch_hard(features, labels, margin):
    """The bracket of Eqs. 3 and 4 for each row as an anchor: features [n, C], labels [n] -> float32 [n].

    The positives are all rows of the anchor's label, itself included: at distance 0 it never changes the maximum.
    """
    distance = euclidean_distance(features, features)  # [n, n]
    positive = same_labels(labels, labels)  # [n, n]
    negative = ~positive
    hinge = torch.relu(masked_max(distance, positive) - masked_min(distance, negative) + margin)  # [n]
    return hinge * negative.any(-1)


class HardTripletLoss(nn.Module):
    """Batch-hard triplet loss, Euclidean, mean over the anchors.

    margin: >= 0, in the features' unit. Call: features [n, C], labels int32 [n]. Returns a float32 scalar.
    Raises ValueError for a negative margin, or labels that do not match the features.
    """

    def __init__(self, margin):
        super().__init__()
        check_margin(margin)
        self.margin = margin

    def forward(self, features, labels):
        check_batch(features, labels)
        return batch_hard(features, labels, self.margin).mean()


class ProgressiveHardTripletLoss(nn.Module):
    """PHT, Eq. 2. Stage 1 is L_Intra (Eq. 3): each modality mines within itself. Stage 2 is L_Global (Eq. 4).

    margin: >= 0, in the features' unit. reduction: "mean" takes the mean over the anchors of each sum of Eqs. 3 and 4
    (so L_Intra is a sum of two means), "sum" the sums as printed.
    Call: features [2PK, C], labels int32 [2PK], stage the Python int 1 or 2. Returns a float32 scalar.
    Raises ValueError for a negative margin, another reduction or stage, or rows that cannot be halved.
    """

    def __init__(self, margin, reduction="mean"):
        super().__init__()
        check_margin(margin)
        check_choice("reduction", reduction, ("mean", "sum"))
        self.margin = margin
        self.reduction = reduction

    def forward(self, features, labels, stage):
        check_batch(features, labels, 2)
        if stage not in (1, 2):
            raise ValueError(f"stage must be 1 or 2, not {stage}")
        if stage == 2:
            return self.reduce(batch_hard(features, labels, self.margin))  # Eq. 4
        half = labels.shape[0] // 2
        visible = batch_hard(features[:half], labels[:half], self.margin)  # [PK]
        infrared = batch_hard(features[half:], labels[half:], self.margin)  # [PK]
        return self.reduce(visible) + self.reduce(infrared)  # Eq. 3

    def reduce(self, brackets):
        return brackets.mean() if self.reduction == "mean" else brackets.sum()


class WeightedRegularizedTripletLoss(nn.Module):
    """WRT of AGW: softplus(sum_p w_p d_p - sum_n w_n d_n), Euclidean, mean over the anchors.

    w_p weighs the distances to the positives (itself included), w_n the negated distances to the negatives; gradients
    pass through both. weights: "released" as AGW's code has them (`released_softmax`): nearest negatives further than
    about 14 count less and less, so that the loss then pulls all features together. "softmax": the paper's formula.
    Call: features [n, C], labels int32 [n]. Returns a float32 scalar.
    Raises ValueError for other weights, or labels that do not match the features.
    """

    def __init__(self, weights="released"):
        super().__init__()
        check_choice("weights", weights, ("released", "softmax"))
        self.weights = weights

    def forward(self, features, labels):
        check_batch(features, labels)
        weights_of = released_softmax if self.weights == "released" else masked_softmax
        distance = euclidean_distance(features, features)  # [n, n]
        positive = same_labels(labels, labels)  # [n, n]
        negative = ~positive
        furthest_positive = (weights_of(distance, positive) * distance).sum(-1)  # [n]
        closest_negative = (weights_of(-distance, negative) * distance).sum(-1)  # [n]
        return (functional.softplus(furthest_positive - closest_negative) * negative.any(-1)).mean()
