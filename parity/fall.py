"""A state from which a small PMT falls over within seven steps, and the pictures on which it does.

A ViT that is trained from scratch may give all pictures one feature, or its opposite where they are darker than an edge
(docs/training.md). A flat picture on the edge has all of its tokens there. What adds up in other pictures' residual
streams cancels in its own, LayerNorm divides by what is left, and the patch embedding's gradient is many times the
usual. The weights here have such an edge, and the moments of AdamW have seen small gradients alone.
"""

from types import SimpleNamespace

import numpy as np
import torch

from ms_vireid.config import Config
from ms_vireid.data.transforms import IMAGENET_MEAN, IMAGENET_STD

CALM = 200  # steps that the moments have seen
GRADIENT = 3e-3  # the root mean square of their gradients
BLOCK = 8  # pixels of one gray level in a picture
GRAY = 60.0, 200.0  # the levels, of 255
DARK = 20.0  # the edge, and the mean of a flat picture
NOISE = 2.0  # its deviation; that of the others is 5, and of their brightness 10
FLAT = [4, 5]  # pictures of that step
SLOPE = 1e-3  # of a token in a pixel's brightness, along one direction
POLE = 3.0  # what the first block adds to the residual stream on either side of the edge


class GrayBatches:
    """Batches as `TrainingBatches`: an identity is a pattern of gray blocks, the same in both modalities. Step `falls`
    has flat, dark pictures."""

    def __init__(self, config: Config, falls: int | None):
        self.config, self.falls = config, falls
        self.sampler = SimpleNamespace(iterations=config.train.iterations)
        height, width = config.data.image_size
        blocks = np.random.default_rng(0).uniform(*GRAY, (config.num_classes, height // BLOCK, width // BLOCK))
        self.patterns = blocks.repeat(BLOCK, 1).repeat(BLOCK, 2)

    def __len__(self) -> int:
        return self.config.epochs * self.sampler.iterations

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        draw, train = np.random.default_rng([1, step]), self.config.train
        identities = draw.permutation(len(self.patterns))[: train.num_identities]
        labels = np.tile(identities.repeat(train.num_instances), 2)
        gray = self.patterns[labels] + draw.normal(0.0, 10.0, (len(labels), 1, 1))
        gray += draw.normal(0.0, 5.0, gray.shape)
        if step == self.falls:
            gray[FLAT] = DARK + draw.normal(0.0, NOISE, gray[FLAT].shape)
        return normalised(gray[:, None]), labels.astype(np.int32)


def normalised(gray: np.ndarray | float) -> np.ndarray:
    """Normalise gray levels: [..., 1, H, W] or a number -> float32 [..., 3, H, W] or [3, 1, 1]."""
    mean, deviation = (pixel.reshape(3, 1, 1) for pixel in (IMAGENET_MEAN, IMAGENET_STD))
    return ((gray / 255 - mean) / deviation).astype(np.float32)


def on_the_edge(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a PMT's weights whose patch embedding shows brightness along one direction, 0 for a flat, dark picture,
    and whose first attention adds one of two opposite features, by the direction's sign in most tokens."""
    patches = weights["base.patch_embed.proj.weight"]
    width = len(patches)
    brighter = torch.arange(width) % 2 * 2.0 - 1.0  # [D]
    pole = torch.arange(width) // 2 % 2 * 2.0 - 1.0
    patches = patches + SLOPE * brighter.reshape(-1, 1, 1, 1)
    query_key = weights["base.blocks.0.attn.qkv.weight"][: 2 * width]
    proj = weights["base.blocks.0.attn.proj.weight"]
    return weights | {
        "base.patch_embed.proj.weight": patches,
        "base.patch_embed.proj.bias": -(patches * torch.from_numpy(normalised(DARK))).sum((1, 2, 3)),
        "base.pos_embed": 0.1 * weights["base.pos_embed"],
        "base.blocks.0.attn.qkv.weight": torch.cat([query_key, torch.eye(width)]),
        "base.blocks.0.attn.proj.weight": proj + POLE / width * torch.outer(pole, brighter),
    }


def remember_calm_steps(optimizer: torch.optim.AdamW) -> None:
    """Set the moments to those of `CALM` steps with small gradients of changing signs."""
    for group in optimizer.param_groups:
        square = GRADIENT**2 * (1.0 - group["betas"][1] ** CALM)
        for weight in group["params"]:
            moments = {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.full_like(weight, square)}
            optimizer.state[weight] = {"step": torch.tensor(float(CALM)), **moments}
