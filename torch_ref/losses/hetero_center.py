"""Twin of `ms_vireid.losses.hetero_center`, whose docstrings hold here."""

from torch import Tensor, nn

from ms_vireid.command.arguments import number, whole_number
from torch_ref.losses.batch import check_batch, group_centers
from torch_ref.losses.triplet import batch_hard


class HeteroCenterTripletLoss(nn.Module):
    def __init__(self, num_instances: int, margin: float):
        super().__init__()
        self.num_instances = whole_number("num_instances", num_instances, 1)
        self.margin = number("margin", margin, 0)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        check_batch(features, labels, 2 * self.num_instances)
        groups = features.float().reshape(-1, self.num_instances, features.shape[1])  # [2P, K, C]
        centers = group_centers(groups)  # [2P, C]
        center_labels = labels.reshape(-1, self.num_instances)[:, 0]  # [2P]
        return batch_hard(centers, center_labels, self.margin).mean()
