"""Twin of `ms_vireid.losses.identity`, whose docstrings hold here."""

from torch import Tensor, nn

from torch_ref.losses.batch import check_batch


class IdentityLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_batch(logits, labels, 2)
        half = labels.shape[0] // 2
        logits, labels = logits.float(), labels.long()  # cross entropy takes no int32
        visible = self.cross_entropy(logits[:half], labels[:half])
        infrared = self.cross_entropy(logits[half:], labels[half:])
        return visible + infrared


class AuxiliaryIdentityLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.cross_entropy(logits.float(), labels.long())
