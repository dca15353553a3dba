"""Modality prototypes of MUN: what L_ma compares, accumulated over the iterations."""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer

from ms_vireid.losses.batch import check_choice, check_num_instances
from ms_vireid.programs.operators import Product, constant
from ms_vireid.programs.tensors import overwrite


class ModalityPrototypes(nn.Cell):
    """T^v, T^r and T^a, Eqs. 13 and 14 (MUN): W_p^m Z^m at first, then beta W_p^m Z^m + (1 - beta) T^m of before.

    W_p^m are square matrices without bias that start as the identity (the paper says that they are learnable, not how
    they start). No gradient passes into the T^m of before, which would reach through all iterations.

    memory: what row a batch's row is accumulated with:
        "slots": the row at its place in the batch before, as printed: T^m is [B, C], of the batch's shape. Batches hold
            other identities each time, so that a slot mixes the identities of all batches, weighted by beta.
        "identity": its own identity's row, K rows an identity, the j-th image of an identity with its j-th row.
    A memory row that has not been written yet is treated as in the 0-th iteration, Eq. 13, whatever beta is. The rows
    are buffers, not trained, and belong into a checkpoint. With several devices each has rows of its own.

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
        self.rows = rows
        identity = np.broadcast_to(np.eye(width, dtype=np.float32), (3, width, width))
        self.projection = Parameter(Tensor(identity.copy()), name="projection")  # W_p, [3, C, C]
        self.projected = Product(transpose_y=True, batches=True)
        self.memory = _buffer("memory", 3, rows, width)
        self.seen = _buffer("seen", 3, rows)  # 1 where a row has been written

    def construct(self, features, beta, labels=None):
        if tuple(features.shape) != self.shape:
            raise ValueError(f"the prototypes are made for features {self.shape}, not {tuple(features.shape)}")
        distilled = self.projected(features.astype(ms.float32), self.projection)  # W_p Z
        if not self.by_identity:
            prototypes = accumulated(distilled, beta, self.memory, self.seen)
            overwrite(self.memory, ops.stop_gradient(prototypes))
            overwrite(self.seen, constant(1.0, ms.float32))
            return prototypes
        places = self.places(labels)  # [3PK] of the 3 * rows
        memory, seen = self.memory.reshape(-1, self.shape[2]), self.seen.reshape(-1)
        prototypes = accumulated(distilled, beta, memory[places].reshape(self.shape), seen[places].reshape(3, -1))
        indices = ops.expand_dims(places, 1)
        remembered = ops.stop_gradient(prototypes).reshape(-1, self.shape[2])
        written = ops.ones_like(places).astype(ms.float32)
        ops.assign(self.memory, ops.tensor_scatter_update(memory, indices, remembered).reshape(self.memory.shape))
        ops.assign(self.seen, ops.tensor_scatter_update(seen, indices, written).reshape(self.seen.shape))
        return prototypes

    def memories(self):
        """The rows and which of them have been written."""
        return [self.memory, self.seen]

    def places(self, labels):
        """The memory's row of each row of the three batches, for "identity": int32 [3PK]."""
        if labels is None:
            raise ValueError("memory='identity' needs the labels of the features")
        slot = ops.arange(0, self.shape[1], 1, dtype=ms.int32)
        own = labels.astype(ms.int32) * self.num_instances + slot % self.num_instances  # [PK]
        first = ops.arange(0, 3 * self.rows, self.rows, dtype=ms.int32)  # of each modality
        return (ops.expand_dims(first, 1) + ops.expand_dims(own, 0)).reshape(-1)


def accumulated(distilled, beta, before, seen):
    """Eqs. 13 and 14: W_p Z [3, PK, C] with the rows of before, and which of them there are [3, PK]."""
    one = constant(1.0, ms.float32)
    ratio = ops.expand_dims(ops.where(seen > constant(0.0, ms.float32), beta, one), 2)  # [3, PK, 1]
    return ops.add(ratio * distilled, ops.sub(one, ratio) * ops.stop_gradient(before))


def _buffer(name, *shape):
    """Zeros that are kept in checkpoints and not trained."""
    return Parameter(initializer("zeros", shape, ms.float32), name=name, requires_grad=False)
