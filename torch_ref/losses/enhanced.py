"""Twin of `ms_vireid.losses.enhanced`, whose docstrings hold here."""

import torch
from torch import Tensor, nn

from torch_ref.losses import logarithms
from torch_ref.losses.batch import check_batch, same_labels
from torch_ref.losses.distance import euclidean_distance
from torch_ref.losses.triplet import weighted_pair

LARGEST = 88.0  # that the release lets a square be: exp(88) is still a float32


class EnhancedSquaredDifferenceLoss(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels)
        positive = same_labels(labels, labels)  # [n, n]
        furthest_positive, closest_negative = weighted_pair(euclidean_distance(features, features), positive)  # [n]
        difference = furthest_positive - closest_negative
        square = torch.square(difference).clamp(max=LARGEST)
        signed = torch.where(difference > 0, square, -square)
        return (logarithms.softplus(signed) * (~positive).any(-1)).mean()
