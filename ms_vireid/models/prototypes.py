"""Modality prototypes of MUN: what L_ma compares, accumulated over the iterations."""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_vireid.replaceable import replaceable


class ModalityPrototypes(nn.Cell):
    """T^v, T^r and T^a, Eqs. 13 and 14 (MUN): W_p^m Z^m at first, then beta W_p^m Z^m + (1 - beta) T^m of before.

    W_p^m are square matrices without bias that start as the identity (the paper says that they are learnable, not how
    they start). No gradient passes into the T^m of before, which would reach through all iterations.

    memory: the row with which a batch's row is accumulated:
        "slots": the row at the same place of the previous batch, as printed: T^m has the batch's shape, [B, C]. Batches
            hold different identities, so a slot mixes the identities of all batches, weighted by beta.
        "identity": a row of its identity, which has K rows: the j-th image of an identity goes with the j-th.
    A memory row that has not been written yet is treated as in the 0-th iteration, Eq. 13, whatever beta is. The rows
    are buffers that must be checkpointed. Each of several devices has its own.

    num_identities: P. num_instances: K. width: C. num_classes: identities of the training set, for "identity".
    Call: pooled features [3, PK, C] of visible, infrared and auxiliary, each identity-major; beta, Eq. 14's of this
    iteration, a number or a float32 scalar; labels int32 [PK] in 0 ... num_classes - 1, for "identity".
    Returns the prototypes, float32 [3, PK, C], and remembers them.
    Raises ValueError for features of another shape, or no labels where they are needed.
    """

    def __init__(
        self, num_identities: int, num_instances: int, width: int, memory: str = "slots", num_classes: int | None = None
    ):
        super().__init__()
        self.num_instances = num_instances
        self.shape = (3, num_identities * num_instances, width)
        self.by_identity = memory == "identity"
        rows = num_classes * num_instances if self.by_identity else num_identities * num_instances
        self.projection = Parameter(Tensor(np.tile(np.eye(width, dtype=np.float32), (3, 1, 1))))  # W_p, [3, C, C]
        self.memory = Parameter(ops.zeros((3, rows, width), ms.float32), requires_grad=False)
        self.seen = Parameter(ops.zeros((3, rows), ms.float32), requires_grad=False)  # 1 where a row has been written

    @replaceable("graph")
    def construct(self, features: Tensor, beta: Tensor | float, labels: Tensor | None = None) -> Tensor:
        if tuple(features.shape) != self.shape:
            raise ValueError(f"the prototypes are made for features {self.shape}, not {tuple(features.shape)}")
        distilled = ops.bmm(features.float(), self.projection.swapaxes(1, 2))  # W_p Z
        if not self.by_identity:
            prototypes = accumulated(distilled, beta, self.memory, self.seen)
            ops.assign(self.memory, ops.stop_gradient(prototypes))
            ops.assign(self.seen, ops.ones_like(self.seen))
            return prototypes
        places = self.places(labels)  # [PK]
        before, seen = ops.gather(self.memory, places, 1), ops.gather(self.seen, places, 1)
        prototypes = accumulated(distilled, beta, before, seen)
        ops.assign(self.memory, _written(self.memory, places, ops.stop_gradient(prototypes)))
        ops.assign(self.seen, _written(self.seen, places, ops.ones_like(seen)))
        return prototypes

    def places(self, labels: Tensor | None) -> Tensor:
        """The memory row for each row of a batch, for "identity": int32 [PK]."""
        if labels is None:
            raise ValueError("memory='identity' needs the labels of the features")
        slot = ops.arange(self.shape[1]).int()
        return labels * self.num_instances + slot % self.num_instances


def accumulated(distilled: Tensor, beta: Tensor | float, before: Tensor, written: Tensor) -> Tensor:
    """Eqs. 13 and 14 from W_p Z [3, PK, C], the previous rows, and which of these have been written [3, PK]."""
    ratio = ops.where(written > 0, beta, 1.0).unsqueeze(-1)  # [3, PK, 1]
    return ratio * distilled + (1.0 - ratio) * ops.stop_gradient(before)


def _written(rows: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Write values [3, n, ...] at n places of rows [3, R, ...]."""
    indices = places.unsqueeze(1)
    return ops.tensor_scatter_update(rows.swapaxes(0, 1), indices, values.swapaxes(0, 1)).swapaxes(0, 1)
