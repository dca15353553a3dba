"""Modality prototypes of MUN: what L_ma compares, accumulated over the iterations."""

import torch
from torch import nn

from torch_ref.losses.batch import check_choice, check_num_instances


class ModalityPrototypes(nn.Module):
    """T^v, T^r and T^a, Eqs. 13 and 14 (MUN): W_p^m Z^m at first, then beta W_p^m Z^m + (1 - beta) T^m of before.

    W_p^m are square matrices without bias that start as the identity (the paper says that they are learnable, not how
    they start). No gradient passes into the T^m of before, which would reach through all iterations.

    memory: what row a batch's row is accumulated with:
        "slots": the row at its place in the batch before, as printed: T^m is [B, C], of the batch's shape. Batches hold
            other identities each time, so that a slot mixes the identities of all batches, weighted by beta.
        "identity": its own identity's row, K rows an identity, the j-th image of an identity with its j-th row.
    A memory row that has not been written yet is treated as in the 0-th iteration, Eq. 13, whatever beta is. The rows
    are buffers, not trained, and belong into a checkpoint.

    num_identities: P. num_instances: K. width: C. num_classes: identities of the training set, for "identity".
    Call: pooled features [3, PK, C] of visible, infrared and auxiliary, each identity-major; beta, Eq. 14's of this
    iteration, a number or a float32 scalar; labels int32 [PK] in 0 ... num_classes - 1, for "identity".
    Returns the prototypes, float32 [3, PK, C], and remembers them.
    Raises ValueError for wrong arguments, features of another shape, or no labels where they are needed.
    """

    def __init__(self, num_identities, num_instances, width, memory="slots", num_classes=None):
        super().__init__()
        check_num_instances(num_instances)
        check_choice("memory", memory, ("slots", "identity"))
        if memory == "identity" and not num_classes:
            raise ValueError("memory='identity' has rows for every identity: num_classes is needed")
        self.num_instances = num_instances
        self.shape = (3, num_identities * num_instances, width)
        self.by_identity = memory == "identity"
        rows = num_classes * num_instances if self.by_identity else num_identities * num_instances
        self.projection = nn.Parameter(torch.eye(width).repeat(3, 1, 1))  # W_p, [3, C, C]
        self.register_buffer("memory", torch.zeros(3, rows, width))
        self.register_buffer("seen", torch.zeros(3, rows))  # 1 where a row has been written

    def forward(self, features, beta, labels=None):
        if tuple(features.shape) != self.shape:
            raise ValueError(f"the prototypes are made for features {self.shape}, not {tuple(features.shape)}")
        distilled = torch.bmm(features.to(self.projection.dtype), self.projection.transpose(1, 2))  # W_p Z
        places = self.places(labels)  # [PK]
        prototypes = accumulated(distilled, beta, self.memory[:, places], self.seen[:, places])
        self.memory = self.memory.index_copy(1, places, prototypes.detach())
        self.seen = self.seen.index_fill(1, places, 1.0)
        return prototypes

    def places(self, labels):
        """The memory's row of each row of the batch: int64 [PK]."""
        slot = torch.arange(self.shape[1], device=self.seen.device)
        if not self.by_identity:
            return slot
        if labels is None:
            raise ValueError("memory='identity' needs the labels of the features")
        return labels.to(torch.int64) * self.num_instances + slot % self.num_instances


def accumulated(distilled, beta, before, seen):
    """Eqs. 13 and 14: W_p Z [3, PK, C] with the rows of before, and which of them there are [3, PK]."""
    ratio = torch.where(seen > 0, beta, 1.0)[..., None]  # [3, PK, 1]
    return ratio * distilled + (1.0 - ratio) * before.detach()
