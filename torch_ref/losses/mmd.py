"""Twin of `ms_vireid.losses.mmd`, whose docstrings hold here."""

import torch
from torch import Tensor

from torch_ref.losses.distance import squared_distances

KERNELS = 5  # of widths that double, the middle one as wide as the rows are apart in the mean
BANDWIDTH_FLOOR = 1e-9  # of rows that all coincide


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.float(), y.float()
    within_x, within_y, between = squared_distances(x, x), squared_distances(y, y), squared_distances(x, y)
    bandwidth = mean_bandwidth(within_x, within_y, between).detach().reshape(-1, 1, 1, 1)  # [G, 1, 1, 1]
    widths = bandwidth * 2.0 ** torch.arange(KERNELS, dtype=torch.float32, device=x.device)  # [G, 1, 1, 5]
    return mean_kernel(within_x, widths) + mean_kernel(within_y, widths) - 2.0 * mean_kernel(between, widths)


def mean_kernel(squared: Tensor, widths: Tensor) -> Tensor:
    return torch.exp(-squared.unsqueeze(-1) / widths).sum(-1).mean((1, 2))


def mean_bandwidth(within_x: Tensor, within_y: Tensor, between: Tensor) -> Tensor:
    count = between.shape[1] + between.shape[2]
    total = within_x.sum((1, 2)) + within_y.sum((1, 2)) + 2.0 * between.sum((1, 2))
    return total / (count * (count - 1)) / 2.0 ** (KERNELS // 2) + BANDWIDTH_FLOOR
