"""Twin of `ms_vireid.losses.alignment`, whose docstrings hold here."""

import torch
from torch import Tensor, nn

from ms_vireid.command.arguments import number, require_choice, require_switch, whole_number
from torch_ref.losses import logarithms
from torch_ref.losses.batch import check_batch, group_centers
from torch_ref.losses.distance import euclidean_distance, hinge
from torch_ref.losses.mmd import squared_mmd


def check_modalities(modalities: tuple[Tensor, ...], multiple: int = 1) -> None:
    shapes = [tuple(rows.shape) for rows in modalities]
    if len(set(shapes)) > 1:
        raise ValueError(f"visible, infrared and auxiliary rows must have one shape, not {', '.join(map(str, shapes))}")
    if shapes[0][0] == 0 or shapes[0][0] % multiple != 0:
        raise ValueError(f"the number of rows must be a positive multiple of {multiple}, not {shapes[0][0]}")


class IdentityConsistencyLoss(nn.Module):
    def forward(self, visible_logits: Tensor, infrared_logits: Tensor, labels: Tensor) -> Tensor:
        check_batch(visible_logits, labels)
        check_batch(infrared_logits, labels)
        of_visible = logarithms.cross_entropy(visible_logits.float(), labels)
        return of_visible + logarithms.cross_entropy(infrared_logits.float(), labels)


class IdentityAlignmentLoss(nn.Module):
    def __init__(self, num_instances: int, margin: float = 0.55, reduction: str = "sum"):
        super().__init__()
        require_choice("reduction", reduction, ("sum", "mean"))
        self.num_instances = whole_number("num_instances", num_instances, 1)
        self.margin = number("margin", margin, 0)
        self.reduction = reduction

    def forward(self, visible: Tensor, infrared: Tensor, auxiliary: Tensor) -> Tensor:
        check_modalities((visible, infrared, auxiliary), self.num_instances)
        rows = torch.cat((visible, infrared, auxiliary), dim=0).float()  # [3PK, C]
        centers = group_centers(rows.reshape(-1, self.num_instances, rows.shape[1]))  # [3P, C]
        identities = centers.shape[0] // 3
        distance = euclidean_distance(centers[2 * identities :], centers[: 2 * identities])  # [P, 2P], a to v and r
        same = torch.eye(identities, dtype=torch.bool, device=rows.device).tile(2)  # [P, 2P]
        brackets = hinge(distance, same, self.margin)  # [P], Eq. 12
        return brackets.sum() if self.reduction == "sum" else brackets.mean()


class ModalityAlignmentLoss(nn.Module):
    def __init__(self, num_instances: int, bridge: bool = True):
        super().__init__()
        self.num_instances = whole_number("num_instances", num_instances, 1)
        require_switch("bridge", bridge)
        self.bridge = bridge

    def forward(self, visible: Tensor, infrared: Tensor, auxiliary: Tensor) -> Tensor:
        check_modalities((visible, infrared, auxiliary), self.num_instances)
        groups = (-1, self.num_instances, visible.shape[1])  # [P, K, C]
        v, r, a = visible.reshape(groups), infrared.reshape(groups), auxiliary.reshape(groups)
        if not self.bridge:
            return squared_mmd(v, r).mean()
        return (squared_mmd(v, a) + squared_mmd(a, r)).mean()
