"""Modality prototypes of MUN: what L_ma compares, accumulated over the iterations."""

import mindspore as ms
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import Identity, initializer

from ms_vireid.losses.alignment import check_modalities
from ms_vireid.losses.batch import check_choice, check_num_instances


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
    Call: pooled features visible, infrared, auxiliary, each [PK, C], identity-major; beta, Eq. 14's of this iteration,
    a number or a float32 scalar; labels int32 [PK] in 0 ... num_classes - 1, for "identity".
    Returns the three prototypes, each float32 [PK, C], and remembers them.
    Raises ValueError for wrong arguments, features of another shape, or no labels where they are needed.
    """

    def __init__(self, num_identities, num_instances, width, memory="slots", num_classes=None):
        super().__init__()
        check_num_instances(num_instances)
        check_choice("memory", memory, ("slots", "identity"))
        if memory == "identity" and not num_classes:
            raise ValueError("memory='identity' has rows for every identity: num_classes is needed")
        self.num_instances = num_instances
        self.shape = (num_identities * num_instances, width)
        self.by_identity = memory == "identity"
        rows = num_classes * num_instances if self.by_identity else num_identities * num_instances
        self.visible_projection = projection(width)
        self.infrared_projection = projection(width)
        self.auxiliary_projection = projection(width)
        self.visible = _buffer("visible", rows, width)
        self.infrared = _buffer("infrared", rows, width)
        self.auxiliary = _buffer("auxiliary", rows, width)
        self.seen = _buffer("seen", rows)  # 1 where a row has been written

    def construct(self, visible, infrared, auxiliary, beta, labels=None):
        check_modalities((visible, infrared, auxiliary))
        if tuple(visible.shape) != self.shape:
            raise ValueError(f"the prototypes are made for features {self.shape}, not {tuple(visible.shape)}")
        places = self.places(labels)  # [PK]
        ratio = ops.where(self.seen[places] > 0, beta, 1.0)[:, None]  # [PK, 1]
        prototypes = (
            self.accumulate(self.visible, places, self.visible_projection, visible, ratio),
            self.accumulate(self.infrared, places, self.infrared_projection, infrared, ratio),
            self.accumulate(self.auxiliary, places, self.auxiliary_projection, auxiliary, ratio),
        )
        written = ops.ones_like(places).astype(ms.float32)
        ops.assign(self.seen, ops.tensor_scatter_update(self.seen, places[:, None], written))
        return prototypes

    def memories(self):
        """The rows and which of them have been written."""
        return [self.visible, self.infrared, self.auxiliary, self.seen]

    def places(self, labels):
        """The memory's row of each row of the batch: int32 [PK]."""
        slot = ops.arange(0, self.shape[0], 1, dtype=ms.int32)
        if not self.by_identity:
            return slot
        if labels is None:
            raise ValueError("memory='identity' needs the labels of the features")
        return labels.astype(ms.int32) * self.num_instances + slot % self.num_instances

    def accumulate(self, memory, places, project, features, ratio):
        """Eq. 14 for one modality: features Z [PK, C], ratio [PK, 1] -> T [PK, C], which `memory` then holds."""
        distilled = project(features.astype(memory.dtype))  # W_p Z, [PK, C]
        before = ops.stop_gradient(memory[places])  # [PK, C]
        prototypes = ratio * distilled + (1.0 - ratio) * before
        remembered = ops.stop_gradient(prototypes)
        ops.assign(memory, ops.tensor_scatter_update(memory, places[:, None], remembered))
        return prototypes


def projection(width):
    """W_p: square, without bias, the identity at first."""
    return nn.Dense(width, width, weight_init=Identity(), has_bias=False)


def _buffer(name, *shape):
    """Zeros that are kept in checkpoints and not trained."""
    return Parameter(initializer("zeros", shape, ms.float32), name=name, requires_grad=False)
