"""Twin of `ms_vireid.losses.distance`, whose docstrings hold here."""

import torch
from torch import Tensor

LARGE = 1e30  # takes an entry out of a maximum, minimum or softmax; finite, so that LARGE * 0 is 0 and not nan
TINY = 2.0**-126  # the smallest normal float32: to a processor's threads that flush smaller ones they are 0


def safe_sqrt(squared: Tensor) -> Tensor:
    positive = squared >= TINY
    return torch.where(positive, torch.sqrt(torch.where(positive, squared, 1.0)), 0.0)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.square(x.unsqueeze(-2) - y.unsqueeze(-3)).sum(-1)


def euclidean_distance(x: Tensor, y: Tensor) -> Tensor:
    return safe_sqrt(squared_distances(x.float(), y.float()))  # [n, m]


def unit_rows(x: Tensor) -> Tensor:
    norm = safe_sqrt(torch.square(x).sum(-1)).unsqueeze(1)  # [n, 1]
    nonzero = norm > 0
    return torch.where(nonzero, x / torch.where(nonzero, norm, 1.0), 0.0)


def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    return 1.0 - unit_rows(x.float()) @ unit_rows(y.float()).T  # [n, m]


def masked_max(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, -LARGE).amax(-1) * mask.any(-1)


def masked_min(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, LARGE).amin(-1) * mask.any(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    mask = mask.float()
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)


def nearer_mean(values: Tensor, mask: Tensor) -> Tensor:
    nearer = torch.logical_and(mask, values < masked_mean(values, mask).unsqueeze(1))  # [n, m]
    none_nearer = ~nearer.any(-1)  # [n]
    return masked_mean(values, torch.logical_or(nearer, torch.logical_and(mask, none_nearer.unsqueeze(1))))


def hinge(distance: Tensor, positive: Tensor, margin: float) -> Tensor:
    negative = ~positive
    return torch.relu(masked_max(distance, positive) - masked_min(distance, negative) + margin) * negative.any(-1)


def masked_softmax(values: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(torch.where(mask, values, -LARGE), -1) * mask
