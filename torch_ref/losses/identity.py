"""Twin of `ms_vireid.losses.identity`, whose docstrings hold here."""

from torch import Tensor, nn

from ms_vireid.command.arguments import require_choice
from torch_ref.losses.batch import check_batch


class IdentityLoss(nn.Module):
    def __init__(self, parts: int = 2, over: str = "modalities"):
        super().__init__()
        require_choice("over", over, ("modalities", "rows"))
        self.parts = parts
        self.over = over
        self.cross_entropy = nn.CrossEntropyLoss()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_batch(logits, labels, self.parts)
        logits, labels = logits.float(), labels.long()  # cross entropy takes no int32
        if self.over == "rows":
            return self.cross_entropy(logits, labels)
        if self.parts == 2:
            return 2.0 * self.cross_entropy(logits, labels)
        split = labels.shape[0] - labels.shape[0] // self.parts  # visible rows
        return self.cross_entropy(logits[:split], labels[:split]) + self.cross_entropy(logits[split:], labels[split:])


class AuxiliaryIdentityLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.cross_entropy(logits.float(), labels.long())
