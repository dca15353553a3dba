"""Twin of `ms_vireid.losses.batch`, whose docstrings hold here."""

from torch import Tensor


def check_batch(features: Tensor, labels: Tensor, multiple: int = 1) -> None:
    rows, shape = features.shape[0], tuple(labels.shape)
    if shape != (rows,):
        raise ValueError(f"labels must have shape ({rows},) as there are {rows} rows of features, not {shape}")
    if rows == 0 or rows % multiple != 0:
        raise ValueError(f"the number of rows must be a positive multiple of {multiple}, not {rows}")


def same_labels(labels: Tensor, others: Tensor) -> Tensor:
    return labels.unsqueeze(1) == others.unsqueeze(0)


def group_centers(groups: Tensor) -> Tensor:
    first = groups[:, :1].detach()  # [G, 1, C]
    return first.squeeze(1) + (groups - first).mean(1)  # [G, C]
