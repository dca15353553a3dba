"""Twin of `ms_vireid.losses.identity`, whose docstrings hold here."""

from torch import Tensor, nn

from torch_ref.losses.batch import check_batch


class IdentityLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_batch(logits, labels, 2)
        return 2.0 * self.cross_entropy(logits.float(), labels.long())  # cross entropy takes no int32


class AuxiliaryIdentityLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.cross_entropy(logits.float(), labels.long())
