"""Twin of `ms_vireid.losses.identity`, whose docstrings hold here."""

import torch
from torch import nn
from torch.nn import functional

from torch_ref.losses.batch import check_batch


class IdentityLoss(nn.Module):
    def forward(self, logits, labels):
        check_batch(logits, labels, 2)
        half = labels.shape[0] // 2
        logits, labels = logits.to(torch.float32), labels.to(torch.int64)  # cross_entropy takes no int32
        visible = functional.cross_entropy(logits[:half], labels[:half])
        infrared = functional.cross_entropy(logits[half:], labels[half:])
        return visible + infrared


class AuxiliaryIdentityLoss(nn.Module):
    def forward(self, logits, labels):
        return functional.cross_entropy(logits.to(torch.float32), labels.to(torch.int64))
