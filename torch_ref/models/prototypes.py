"""Twin of `ms_vireid.models.prototypes`, whose docstrings hold here."""

import torch
from torch import Tensor, nn


class ModalityPrototypes(nn.Module):
    def __init__(
        self, num_identities: int, num_instances: int, width: int, memory: str = "slots", num_classes: int | None = None
    ):
        super().__init__()
        self.num_instances = num_instances
        self.shape = (3, num_identities * num_instances, width)
        self.by_identity = memory == "identity"
        rows = num_classes * num_instances if self.by_identity else num_identities * num_instances
        self.projection = nn.Parameter(torch.eye(width).repeat(3, 1, 1))  # W_p, [3, C, C]
        self.register_buffer("memory", torch.zeros(3, rows, width))
        self.register_buffer("seen", torch.zeros(3, rows))  # 1 where a row has been written

    def forward(self, features: Tensor, beta: Tensor | float, labels: Tensor | None = None) -> Tensor:
        if tuple(features.shape) != self.shape:
            raise ValueError(f"the prototypes are made for features {self.shape}, not {tuple(features.shape)}")
        distilled = torch.bmm(features.to(self.projection.dtype), self.projection.transpose(1, 2))  # W_p Z
        if not self.by_identity:
            prototypes = accumulated(distilled, beta, self.memory, self.seen)
            self.memory = prototypes.detach()
            self.seen = torch.ones_like(self.seen)
            return prototypes
        places = self.places(labels)  # [PK]
        before, seen = self.memory[:, places], self.seen[:, places]
        prototypes = accumulated(distilled, beta, before, seen)
        self.memory = self.memory.index_copy(1, places, prototypes.detach())
        self.seen = self.seen.index_copy(1, places, torch.ones_like(seen))
        return prototypes

    def places(self, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise ValueError("memory='identity' needs the labels of the features")
        slot = torch.arange(self.shape[1], device=labels.device)
        return labels.long() * self.num_instances + slot % self.num_instances


def accumulated(distilled: Tensor, beta: Tensor | float, before: Tensor, written: Tensor) -> Tensor:
    ratio = torch.where(written > 0, beta, 1.0).unsqueeze(-1)  # [3, PK, 1]
    return ratio * distilled + (1.0 - ratio) * before.detach()
