"""Twin of `ms_vireid.losses.identity`, whose docstrings hold here."""

from torch import Tensor, nn

from ms_vireid.command.arguments import require_choice
from torch_ref.losses import logarithms
from torch_ref.losses.batch import check_batch


class IdentityLoss(nn.Module):
    def __init__(self, parts: int = 2, over: str = "modalities"):
        super().__init__()
        require_choice("over", over, ("modalities", "rows"))
        self.parts = parts
        self.over = over

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_batch(logits, labels, self.parts)
        logits = logits.float()
        if self.over == "rows":
            return logarithms.cross_entropy(logits, labels)
        if self.parts == 2:
            return 2.0 * logarithms.cross_entropy(logits, labels)
        split = labels.shape[0] - labels.shape[0] // self.parts  # visible rows
        visible = logarithms.cross_entropy(logits[:split], labels[:split])
        return visible + logarithms.cross_entropy(logits[split:], labels[split:])


class AuxiliaryIdentityLoss(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logarithms.cross_entropy(logits.float(), labels)
