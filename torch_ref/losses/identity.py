"""Identity loss: cross entropy of each modality's logits."""

import torch
from torch import nn
from torch.nn import functional

from torch_ref.losses.batch import check_batch


class IdentityLoss(nn.Module):
    """L_ID of Eqs. 11 and 12 (PMT), L_id^v + L_id^r (MUN): CE(visible half) + CE(infrared half), each a mean.

    Call: logits [2PK, N], labels int32 [2PK] in 0 ... N - 1, visible half first. Returns a float32 scalar.
    Raises ValueError if the rows cannot be halved or the labels do not match.
    """

    def forward(self, logits, labels):
        check_batch(logits, labels, 2)
        half = labels.shape[0] // 2
        logits, labels = logits.to(torch.float32), labels.to(torch.int64)  # cross_entropy takes no int32
        visible = functional.cross_entropy(logits[:half], labels[:half])
        infrared = functional.cross_entropy(logits[half:], labels[half:])
        return visible + infrared


class AuxiliaryIdentityLoss(nn.Module):
    """L_id^a (MUN, Tables 1 and 5): the cross entropy of C_a(a), a mean.

    Call: logits [PK, N], labels int32 [PK]. Returns a float32 scalar.
    """

    def forward(self, logits, labels):
        return functional.cross_entropy(logits.to(torch.float32), labels.to(torch.int64))
