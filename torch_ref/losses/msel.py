"""Twin of `ms_vireid.losses.msel`, whose docstrings hold here."""

import torch
from torch import Tensor, nn

from torch_ref.losses.batch import check_batch, check_choice, check_num_instances, same_labels
from torch_ref.losses.distance import cosine_distance, euclidean_distance


class ModalitySharedEnhancementLoss(nn.Module):
    def __init__(self, num_instances: int, distance: str = "euclidean"):
        super().__init__()
        check_num_instances(num_instances, 2)
        check_choice("distance", distance, ("euclidean", "cosine"))
        self.num_instances = num_instances
        self.distance = distance

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels, 2 * self.num_instances)
        pairwise = cosine_distance if self.distance == "cosine" else euclidean_distance
        distance = pairwise(features, features)  # [2PK, 2PK]

        row = torch.arange(labels.shape[0], device=labels.device)  # [2PK]
        infrared = row >= labels.shape[0] // 2  # [2PK]
        same_modality = same_labels(infrared, infrared)  # [2PK, 2PK]
        same_identity = torch.logical_and(same_labels(labels, labels), ~same_labels(row, row))  # itself excluded
        intra_mask = torch.logical_and(same_identity, same_modality)
        cross_mask = torch.logical_and(same_identity, ~same_modality)

        intra = (distance * intra_mask).sum(-1) / (self.num_instances - 1)  # [2PK], Eq. 5
        cross = (distance * cross_mask).sum(-1) / self.num_instances  # [2PK], Eq. 6
        return torch.square(intra - cross).mean()  # Eq. 7
