"""Twin of `ms_vireid.losses.distance`, whose docstrings hold here."""

import torch

LARGE = 1e30  # takes an entry out of a maximum, minimum or softmax; finite, so that LARGE * 0 is 0 and not nan
_TINY = 2.0**-126  # the smallest normal float32: to a processor's threads that flush smaller ones they are 0


def safe_sqrt(squared):
    positive = squared >= _TINY
    return torch.where(positive, torch.sqrt(torch.where(positive, squared, 1.0)), 0.0)


def squared_distances(x, y):
    """Of all pairs of rows: [..., n, C] and [..., m, C] -> [..., n, m]."""
    return torch.square(x.unsqueeze(-2) - y.unsqueeze(-3)).sum(-1)


def euclidean_distance(x, y):
    x, y = x.to(torch.float32), y.to(torch.float32)
    return safe_sqrt(squared_distances(x, y))  # [n, m]


def unit_rows(x):
    norm = safe_sqrt(torch.square(x).sum(-1))[:, None]  # [n, 1]
    nonzero = norm > 0
    return torch.where(nonzero, x / torch.where(nonzero, norm, 1.0), 0.0)


def cosine_distance(x, y):
    return 1.0 - unit_rows(x.to(torch.float32)) @ unit_rows(y.to(torch.float32)).T  # [n, m]


def masked_max(values, mask):
    return torch.amax(torch.where(mask, values, -LARGE), -1) * mask.any(-1)


def masked_min(values, mask):
    return torch.amin(torch.where(mask, values, LARGE), -1) * mask.any(-1)


def masked_mean(values, mask):
    mask = mask.to(torch.float32)
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)


def masked_softmax(values, mask):
    return torch.softmax(torch.where(mask, values, -LARGE), -1) * mask
