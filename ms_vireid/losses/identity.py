"""Identity loss: cross entropy of each modality's logits."""

from mindspore import Tensor, nn

from ms_vireid.losses.batch import check_batch


class IdentityLoss(nn.Cell):
    """L_ID of Eqs. 11 and 12 (PMT), L_id^v + L_id^r (MUN): CE(visible half) + CE(infrared half), each a mean; as both
    have as many rows, twice the mean of all.

    Call: logits [2PK, N], labels int32 [2PK] in 0 ... N - 1, visible half first. Returns a float32 scalar.
    Raises ValueError if the rows cannot be halved or the labels do not match.
    """

    def __init__(self):
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss()

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        check_batch(logits, labels, 2)
        return 2.0 * self.cross_entropy(logits.float(), labels)


class AuxiliaryIdentityLoss(nn.Cell):
    """L_id^a (MUN, Tables 1 and 5): the cross entropy of C_a(a), a mean.

    Call: logits [PK, N], labels int32 [PK]. Returns a float32 scalar.
    """

    def __init__(self):
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss()

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.cross_entropy(logits.float(), labels)
