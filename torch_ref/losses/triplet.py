"""Twin of `ms_vireid.losses.triplet`, whose docstrings hold here."""

import torch
from torch import Tensor, nn

from ms_vireid.command.arguments import number, require_choice
from torch_ref.losses import logarithms
from torch_ref.losses.batch import check_batch, same_labels
from torch_ref.losses.distance import euclidean_distance, hinge, masked_softmax

RELEASED_EPS = 1e-6  # that WRT's release adds to the sum of its weights


def batch_hard(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    distance = euclidean_distance(features, features)  # [n, n]
    return hinge(distance, same_labels(labels, labels), margin)


class HardTripletLoss(nn.Module):
    def __init__(self, margin: float):
        super().__init__()
        self.margin = number("margin", margin, 0)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels)
        return batch_hard(features, labels, self.margin).mean()


class ProgressiveHardTripletLoss(nn.Module):
    def __init__(self, margin: float, reduction: str = "mean"):
        super().__init__()
        require_choice("reduction", reduction, ("mean", "sum"))
        self.margin = number("margin", margin, 0)
        self.reduction = reduction

    def forward(self, features: Tensor, labels: Tensor, stage: int) -> Tensor:
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
        return brackets.mean() if self.reduction == "mean" else brackets.sum()


class WeightedRegularizedTripletLoss(nn.Module):
    def __init__(self, weights: str = "released"):
        super().__init__()
        require_choice("weights", weights, ("released", "softmax"))
        self.weights = weights

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels)
        distance = euclidean_distance(features, features)  # [n, n]
        positive = same_labels(labels, labels)  # [n, n]
        negative = ~positive
        if self.weights == "softmax":
            furthest_positive = (masked_softmax(distance, positive) * distance).sum(-1)  # [n]
            closest_negative = (masked_softmax(-distance, negative) * distance).sum(-1)  # [n]
        else:
            furthest_positive, closest_negative = weighted_pair(distance, positive)  # [n] each
        return (logarithms.softplus(furthest_positive - closest_negative) * negative.any(-1)).mean()


def weighted_pair(distance: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    of_positives = distance * positive  # [n, n]
    top = of_positives.amax(-1).unsqueeze(-1)  # [n, 1]
    furthest_positive = weighted_mean(distance, torch.exp(of_positives - top) * positive)  # [n]
    return furthest_positive, weighted_mean(distance, torch.exp(-distance) * ~positive)


def weighted_mean(values: Tensor, shares: Tensor) -> Tensor:
    return (values * shares).sum(-1) / (shares.sum(-1) + RELEASED_EPS)
