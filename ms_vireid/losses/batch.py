"""The batch convention that the losses share, and the checks of their arguments.

A batch is [2PK, ...]: visible half first, then infrared, each half identity-major with K = num_instances consecutive
rows an identity and the same identity order in both halves.
"""

from mindspore import Tensor, ops


def check_margin(margin: float) -> None:
    """Raise ValueError unless `margin` is a finite number >= 0."""
    if not 0 <= margin < float("inf"):
        raise ValueError(f"margin must be a finite number >= 0, not {margin!r}")


def check_num_instances(num_instances: int, minimum: int = 1) -> None:
    """Raise ValueError unless `num_instances`, K, is an integer >= `minimum`."""
    if not isinstance(num_instances, int) or num_instances < minimum:
        raise ValueError(f"num_instances must be an integer >= {minimum}, not {num_instances!r}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


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
