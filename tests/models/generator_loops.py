"""The auxiliary generator of MUN as slow, obvious loops in float64, written from Eqs. 1-9 in training mode.

Nothing here imports the toolbox or a framework. Weights are a dictionary by name below the learner, PyTorch's names.
"""

import numpy as np


def depthwise(x, weight):
    """x [N, C, H, W], weight [C, 1, k, k], zeros outside."""
    channels, rows, columns = x.shape[1:]
    reach = weight.shape[2] // 2
    result = np.zeros_like(x)
    for c, i, j in np.ndindex(channels, rows, columns):
        for u, v in np.ndindex(*weight.shape[2:]):
            y, z = i + u - reach, j + v - reach
            if 0 <= y < rows and 0 <= z < columns:
                result[:, c, i, j] += weight[c, 0, u, v] * x[:, c, y, z]
    return result


def pointwise(x, weight):
    """x [N, C, H, W], weight [D, C, 1, 1] -> [N, D, H, W]."""
    result = np.zeros((x.shape[0], weight.shape[0], *x.shape[2:]))
    for d, c in np.ndindex(*weight.shape[:2]):
        result[:, d] += weight[d, c, 0, 0] * x[:, c]
    return result


def batch_norm(x, scale, shift):
    """By the batch's own mean and variance over N, H and W."""
    result = np.zeros_like(x)
    for c in range(x.shape[1]):
        channel = x[:, c]
        result[:, c] = scale[c] * (channel - channel.mean()) / np.sqrt(channel.var() + 1e-5) + shift[c]
    return result


def average_pool(x, ratio):
    rows, columns = x.shape[2] // ratio, x.shape[3] // ratio
    result = np.zeros((*x.shape[:2], rows, columns))
    for i, j in np.ndindex(rows, columns):
        window = x[:, :, i * ratio : (i + 1) * ratio, j * ratio : (j + 1) * ratio]
        result[:, :, i, j] = window.sum((2, 3)) / ratio**2
    return result


def transposed(x, weight):
    """x [N, C, h, w], weight [C, D, r, r]: every pixel becomes a patch of r x r pixels."""
    ratio = weight.shape[2]
    result = np.zeros((x.shape[0], weight.shape[1], x.shape[2] * ratio, x.shape[3] * ratio))
    for c, d, u, v in np.ndindex(*weight.shape):
        result[:, d, u::ratio, v::ratio] += weight[c, d, u, v] * x[:, c]
    return result


def intra(x, w):
    """Eqs. 1-5."""
    half = x.shape[1] // 2
    first, second = x[:, :half], x[:, half:]  # Eq. 1
    r = np.concatenate([depthwise(first, w["first.weight"]), depthwise(second, w["second.weight"])], axis=1)  # Eq. 2
    r1 = pointwise(batch_norm(r, w["bn1.weight"], w["bn1.bias"]), w["expand.weight"])  # Eq. 3
    r2 = depthwise(np.where(r1 > 0, r1, 0), w["spatial.weight"]) + r1  # Eq. 4
    out = pointwise(batch_norm(r2, w["bn2.weight"], w["bn2.bias"]), w["reduce.weight"])
    return w["scale"] * out  # Eq. 5


def cross(visible, infrared, ratios, w):
    """Eqs. 6-9."""
    pyramids = [[average_pool(features, ratio) for ratio in ratios] for features in (visible, infrared)]  # Eq. 6
    rebuilt = [
        transposed(scale, w[f"transposed.{i}.weight"]) for pyramid in pyramids for i, scale in enumerate(pyramid)
    ]  # Eq. 7
    s = np.concatenate(rebuilt, axis=1)  # Eq. 8
    out = pointwise(batch_norm(s, w["bn.weight"], w["bn.bias"]), w["fuse.weight"])
    return w["scale"] * out  # Eq. 9


def below(weights, prefix):
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def generator(visible, infrared, ratios, weights):
    visible = intra(visible, below(weights, "visible_learner."))
    infrared = intra(infrared, below(weights, "infrared_learner."))
    return cross(visible, infrared, ratios, below(weights, "cross_learner."))
