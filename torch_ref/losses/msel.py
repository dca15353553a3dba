"""Twin of `ms_vireid.losses.msel`, whose docstrings hold here."""

import torch
from torch import Tensor, nn

from ms_vireid.command.arguments import require_choice, whole_number
from torch_ref.losses.batch import check_batch, same_labels
from torch_ref.losses.distance import cosine_distance, euclidean_distance


class ModalitySharedEnhancementLoss(nn.Module):
    def __init__(self, num_instances: int, distance: str = "euclidean"):
        super().__init__()
        require_choice("distance", distance, ("euclidean", "cosine"))
        self.num_instances = whole_number("num_instances", num_instances, 2)
        self.distance = distance

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels, 2 * self.num_instances)
        distance = self.pairwise(features)  # [2PK, 2PK]

        same_identity = same_labels(labels, labels)  # [2PK, 2PK]
        same_modality, other_modality = _modality_pairs(labels.shape[0], labels.device)
        intra_mask = torch.logical_and(same_identity, same_modality)
        cross_mask = torch.logical_and(same_identity, other_modality)

        intra = (distance * intra_mask).sum(-1) / (self.num_instances - 1)  # [2PK], Eq. 5
        cross = (distance * cross_mask).sum(-1) / self.num_instances  # [2PK], Eq. 6
        return torch.square(intra - cross).mean()  # Eq. 7

    def pairwise(self, features: Tensor) -> Tensor:
        if self.distance == "cosine":
            return cosine_distance(features, features)
        return euclidean_distance(features, features)


def _modality_pairs(rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    modality = torch.arange(rows, device=device) // (rows // 2)
    same = modality.unsqueeze(1) == modality
    return same & ~torch.eye(rows, dtype=torch.bool, device=device), ~same
