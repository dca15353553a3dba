"""Identity loss: cross entropy of each modality's logits."""

from mindspore import Tensor, nn

from ms_vireid.command.arguments import require_choice
from ms_vireid.losses import logarithms
from ms_vireid.losses.batch import check_batch


class IdentityLoss(nn.Cell):
    """L_ID of Eqs. 11 and 12 (PMT), L_id^v + L_id^r (MUN): CE(visible half) + CE(infrared half), each a mean.

    parts: of a batch, equally large; the last one is infrared. over: "modalities", or "rows" for one mean over all rows
    (AGW).
    Call: logits [2PK, N], labels int32 [2PK] in 0 ... N - 1, visible half first. Returns a float32 scalar.
    Raises InputError for another `over`, and ValueError for rows that have no such parts, or labels that do not match.
    """

    def __init__(self, parts: int = 2, over: str = "modalities"):
        super().__init__()
        require_choice("over", over, ("modalities", "rows"))
        self.parts = parts
        self.over = over

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_batch(logits, labels, self.parts)
        logits = logits.float()
        if self.over == "rows":
            return logarithms.cross_entropy(logits, labels)
        if self.parts == 2:  # of equal size
            return 2.0 * logarithms.cross_entropy(logits, labels)
        split = labels.shape[0] - labels.shape[0] // self.parts  # visible rows
        visible = logarithms.cross_entropy(logits[:split], labels[:split])
        return visible + logarithms.cross_entropy(logits[split:], labels[split:])


class AuxiliaryIdentityLoss(nn.Cell):
    """L_id^a (MUN, Tables 1 and 5): the cross entropy of C_a(a), a mean.

    Call: logits [PK, N], labels int32 [PK]. Returns a float32 scalar.
    """

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logarithms.cross_entropy(logits.float(), labels)
