"""Identity loss: cross entropy of each modality's logits."""

from mindspore import nn, ops

from ms_vireid.losses.batch import check_batch
from ms_vireid.programs.operators import cross_entropy


class IdentityLoss(nn.Cell):
    """L_ID of Eqs. 11 and 12 (PMT), L_id^v + L_id^r (MUN): CE(visible half) + CE(infrared half), each a mean.

    Call: logits [2PK, N], labels int32 [2PK] in 0 ... N - 1, visible half first. Returns a float32 scalar.
    Raises ValueError if the rows cannot be halved or the labels do not match.
    """

    def construct(self, logits, labels):
        check_batch(logits, labels, 2)
        half = labels.shape[0] // 2
        visible = cross_entropy(logits[:half], labels[:half])
        infrared = cross_entropy(logits[half:], labels[half:])
        return ops.add(visible, infrared)


class AuxiliaryIdentityLoss(nn.Cell):
    """L_id^a (MUN, Tables 1 and 5): the cross entropy of C_a(a), a mean.

    Call: logits [PK, N], labels int32 [PK]. Returns a float32 scalar.
    """

    def construct(self, logits, labels):
        return cross_entropy(logits, labels)
