"""Decoding and augmentation of one picture (PMT, section "Experimental Setting"), in numpy and Pillow alone."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from ms_vireid.config import AugmentationConfig
from ms_vireid.data.pictures import read_pixels

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
BLUR_KERNEL = 21  # pixels
_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)
ERASING_ATTEMPTS = 100
_SCALE = (1.0 / (255.0 * IMAGENET_STD))[:, None, None]
_OFFSET = (-IMAGENET_MEAN / IMAGENET_STD)[:, None, None]


def load_image(path: Path, size: tuple[int, int], through: tuple[int, int] | None = None) -> np.ndarray:
    """Decode and resize with Lanczos: uint8 [H, W, 3]. `size` is (H, W).

    A gray file becomes three equal channels; other files keep their colours, infrared ones too, as in the releases.
    With `through`, another (H, W), Lanczos resizes to that, and a bilinear filter from there to `size`.
    Raises InputError as `read_pixels` does.
    """
    picture = Image.fromarray(read_pixels(path, gray=True)).resize((through or size)[::-1], Image.Resampling.LANCZOS)
    pixels = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR) if through else picture)
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def normalise(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] to float32 [3, H, W], with ImageNet's mean and standard deviation."""
    image = np.empty((3, *pixels.shape[:2]), np.float32)
    np.multiply(pixels.transpose(2, 0, 1), _SCALE, out=image)  # in one pass: ten times as fast as a transposed copy
    image += _OFFSET
    return image


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Luma (ITU-R 601, Pillow's "L") as three equal channels, uint8 [H, W, 3]."""
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def jitter(pixels: np.ndarray, brightness: float, contrast: float, contrast_first: bool) -> np.ndarray:
    """Brightness and contrast scaled by the given factors in the given order, uint8 [H, W, 3]."""
    image = Image.fromarray(pixels)
    steps = [(ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast)]
    for enhance, factor in reversed(steps) if contrast_first else steps:
        image = enhance(image).enhance(factor)
    return np.asarray(image)


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of `BLUR_KERNEL` taps with reflected borders, uint8 [H, W, 3]; it filters equal channels once."""
    equal = (pixels == pixels[:, :, :1]).all()
    planes = pixels[:, :, : 1 if equal else 3].transpose(2, 0, 1).astype(np.float32, order="C")  # [1 or 3, H, W]
    rows, columns = (_blur_matrix(size, sigma) for size in planes.shape[1:])
    blurred = np.clip(np.rint(rows @ planes @ columns.T), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.repeat(blurred, 3, axis=2) if equal else blurred


def _blur_matrix(size: int, sigma: float) -> np.ndarray:
    """float32 [size, size], banded: row i holds the weights of all pixels in blurred pixel i, reflected ones too."""
    radius = min(BLUR_KERNEL // 2, size - 1)  # a reflection is defined up to size - 1 pixels out
    taps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (taps / sigma) ** 2)
    weights /= weights.sum()
    source = np.abs(np.arange(size)[:, None] + taps)  # reflected at 0 ...
    source = size - 1 - np.abs(size - 1 - source)  # ... and at the far end
    matrix = np.zeros((size, size), np.float32)
    np.add.at(matrix, (np.arange(size)[:, None], source), weights.astype(np.float32))
    return matrix


def random_erasing(image: np.ndarray, config: AugmentationConfig, rng: np.random.Generator) -> np.ndarray:
    """With the configured probability, fill one random rectangle of float32 [3, H, W] in place; returns it."""
    if rng.random() >= config.erasing:
        return image
    height, width = image.shape[1:]
    area = rng.uniform(*config.erasing_area, ERASING_ATTEMPTS) * (height * width)
    aspect = rng.uniform(config.erasing_aspect, 1 / config.erasing_aspect, ERASING_ATTEMPTS)
    heights = np.rint(np.sqrt(area * aspect)).astype(int)
    widths = np.rint(np.sqrt(area / aspect)).astype(int)
    fitting = np.flatnonzero((heights < height) & (widths < width))
    if len(fitting):
        h, w = heights[fitting[0]], widths[fitting[0]]
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        image[:, top : top + h, left : left + w] = np.array(config.erasing_fill, np.float32)[:, None, None]
    return image


def channel_exchange(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random channel in place of all three, float32 [3, H, W] (CAJ, Ye et al. 2021); last, as in the release."""
    return np.repeat(image[rng.integers(3)][None], 3, axis=0)


def adaptive_gray(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the three channels, or the picture itself or its luma, float32 [3, H, W] (CAJ, Ye et al. 2021).

    As in the release: each channel with probability 1/4, luma and the picture itself with 1/8 each, after
    normalisation, so that a gray picture's channels differ in mean and contrast.
    """
    choice = rng.integers(4)
    if choice < 3:
        return np.repeat(image[choice][None], 3, axis=0)
    if rng.random() < 0.5:
        return np.repeat(np.tensordot(_LUMA, image, 1)[None], 3, axis=0)
    return image


def padded_crop(pixels: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    """A random window of the picture's own size after `padding` pixels of black on every side, uint8 [H, W, 3]."""
    height, width = pixels.shape[:2]
    top, left = rng.integers(0, 2 * padding + 1, 2)
    return np.pad(pixels, ((padding, padding), (padding, padding), (0, 0)))[top : top + height, left : left + width]


def augment(
    pixels: np.ndarray, infrared: bool, gray: bool, config: AugmentationConfig, rng: np.random.Generator
) -> np.ndarray:
    """A training picture, uint8 [H, W, 3] to float32 [3, H, W], with random numbers of its own.

    gray: visible pictures lose their colours (stage 1 of PMT). Padding and crop are AGW's, the channel augmentations
    at the end MUN's.
    """
    if spread := infrared and config.infrared_jitter:
        if rng.random() < 0.5:
            brightness, contrast = rng.uniform(1 - spread, 1 + spread, 2)
            pixels = jitter(pixels, brightness, contrast, contrast_first=rng.random() < 0.5)
        else:
            pixels = gaussian_blur(pixels, rng.uniform(*config.infrared_blur_sigma))
    if config.crop_padding:
        pixels = padded_crop(pixels, config.crop_padding, rng)
    if rng.random() < config.flip:
        pixels = pixels[:, ::-1]
    if gray and not infrared:
        pixels = to_gray(np.ascontiguousarray(pixels))
    image = random_erasing(normalise(pixels), config, rng)
    if infrared and config.infrared_adaptive_gray:
        return adaptive_gray(image, rng)
    if not infrared and config.visible_channel_exchange and rng.random() < config.visible_channel_exchange:
        return channel_exchange(image, rng)
    return image
