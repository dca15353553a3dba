"""The batch convention that the losses share, and the checks of their arguments.

A batch is [2PK, ...]: visible half first, then infrared, each half identity-major with K = num_instances consecutive
rows an identity and the same identity order in both halves.
"""

from mindspore import Tensor, ops


def check_batch(features: Tensor, labels: Tensor, multiple: int = 1) -> None:
    """Raise ValueError unless features [n, C] and labels [n] have the same n > 0, a multiple of `multiple`."""
    rows = features.shape[0]
    if labels.shape != (rows,):
        raise ValueError(f"labels must have shape ({rows},) as there are {rows} rows of features, not {labels.shape}")
    if rows == 0 or rows % multiple != 0:
        raise ValueError(f"the number of rows must be a positive multiple of {multiple}, not {rows}")


def same_labels(labels: Tensor, others: Tensor) -> Tensor:
    """Which labels [n] equal which others [m]: bool [n, m]."""
    return labels.unsqueeze(1) == others.unsqueeze(0)


def group_centers(groups: Tensor) -> Tensor:
    """Means of groups of rows: [G, M, C] -> [G, C].

    The mean is that of the offsets from each group's first row: the centre of identical rows is exactly that row, and
    their distance to it exactly 0, in whatever order a sum is computed. The gradient is that of the mean.
    """
    first = ops.stop_gradient(groups[:, :1])  # [G, 1, C]
    return first.squeeze(1) + (groups - first).mean(1)  # [G, C]
