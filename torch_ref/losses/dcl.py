"""Twin of `ms_vireid.losses.dcl`, whose docstrings hold here."""

import torch
from torch import Tensor, nn

from ms_vireid.command.arguments import require_choice, whole_number
from torch_ref.losses.batch import check_batch, group_centers, same_labels
from torch_ref.losses.distance import euclidean_distance, masked_mean, masked_min, nearer_mean


class DiscriminativeCenterLoss(nn.Module):
    def __init__(self, num_instances: int, negatives: str = "dynamic"):
        super().__init__()
        require_choice("negatives", negatives, ("dynamic", "hard", "all"))
        self.num_instances = whole_number("num_instances", num_instances, 1)
        self.negatives = negatives

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels, 2 * self.num_instances)
        instances, width = self.num_instances, features.shape[1]
        halves = features.float().reshape(2, -1, instances, width)  # [2, P, K, C]
        groups = halves.transpose(0, 1).reshape(-1, 2 * instances, width)  # [P, 2K, C]
        centers = group_centers(groups)  # [P, C], Eq. 8
        center_labels = labels.reshape(2, -1, instances)[0, :, 0]  # [P]

        distance = euclidean_distance(centers, features)  # [P, 2PK]
        positive = same_labels(center_labels, labels)  # [P, 2PK]
        numerator = masked_mean(distance, positive).sum()
        denominator = self.negative_distance(distance, ~positive).sum()
        defined = denominator > 0
        return torch.where(defined, numerator / torch.where(defined, denominator, 1.0), 0.0)  # Eq. 10

    def negative_distance(self, distance: Tensor, negative: Tensor) -> Tensor:
        if self.negatives == "hard":
            return masked_min(distance, negative)
        if self.negatives == "all":
            return masked_mean(distance, negative)
        return nearer_mean(distance, negative)  # Eq. 9
