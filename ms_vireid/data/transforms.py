"""Decodes and augments a picture (PMT, section "Experimental Setting"). Imports no framework."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from ms_vireid.config import AugmentationConfig
from ms_vireid.config.schema import Shown
from ms_vireid.data.lanczos import OPTIONS, PIXELS, resize
from ms_vireid.data.pictures import read_pixels
from ms_vireid.files.kernel_cache import njit, numba

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
BLUR_KERNEL = 21  # pixels
_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)
ERASING_ATTEMPTS = 100
_LEVELS = np.arange(256, dtype=np.float32) * (1.0 / (255.0 * IMAGENET_STD))[:, None]
_LEVELS += (-IMAGENET_MEAN / IMAGENET_STD)[
    :, None
]  # normalised value of each of 256 levels in each channel, float32 [3, 256]


def load_image(
    path: Path, size: tuple[int, int], through: tuple[int, int] | None = None, value_range: Shown | None = None
) -> np.ndarray:
    """Decode and resize with Lanczos: uint8 [H, W, 3]. `size` is (H, W).

    A gray file gets three equal channels; other files keep their colours, even infrared ones, as in the releases. With
    `through`, another (H, W), Lanczos resizes to that, and a bilinear filter from there to `size`. value_range, errors:
    as for `read_pixels`.
    """
    return fitted(read_pixels(path, True, value_range), size, through)


def fitted(pixels: np.ndarray, size: tuple[int, int], through: tuple[int, int] | None = None) -> np.ndarray:
    """Resize decoded pixels, uint8 [H', W'] or [H', W', 3], as `load_image` does."""
    pixels = resize(pixels.reshape(*pixels.shape[:2], -1), through or size)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if through:
        pixels = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    return pixels


def normalise(
    pixels: np.ndarray, top: int = 0, left: int = 0, flip: bool = False, out: np.ndarray | None = None
) -> np.ndarray:
    """Normalise uint8 [H, W, 3] to float32 [3, H, W] by ImageNet's mean and standard deviation.

    top, left: offset of a window of the picture's size; outside the picture it is black. flip: mirror the window. out:
    where to write it. One pass over the pixels takes half the time of NumPy's product and sum alone.
    """
    out = np.empty((3, *pixels.shape[:2]), np.float32) if out is None else out
    _normalise(np.ascontiguousarray(pixels), _LEVELS, top, left, flip, out)
    return out


@njit(
    numba.void(PIXELS, numba.float32[:, ::1], numba.int64, numba.int64, numba.boolean, numba.float32[:, :, ::1]),
    **OPTIONS,
)
def _normalise(pixels, levels, top, left, flip, out):
    height, width, channels = pixels.shape
    begin, end = min(max(0, -left), width), max(0, min(width, width - left))  # the window's columns inside the picture
    inside = (width - end, width - begin) if flip else (begin, end)  # of the output; the columns beside it are black
    for y in range(height):
        if not 0 <= top + y < height:
            for c in range(channels):
                out[c, y] = levels[c, 0]
            continue
        source = pixels[top + y, begin + left : end + left]
        for c in range(channels):
            level, line = levels[c], out[c, y, inside[0] : inside[1]]
            out[c, y, : inside[0]] = level[0]
            out[c, y, inside[1] :] = level[0]
            if flip:
                for x in range(len(line)):
                    line[len(line) - 1 - x] = level[source[x, c]]
            else:
                for x in range(len(line)):
                    line[x] = level[source[x, c]]


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Convert to luma (ITU-R 601, Pillow's "L") as three equal channels, uint8 [H, W, 3]."""
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def jitter(pixels: np.ndarray, brightness: float, contrast: float, contrast_first: bool) -> np.ndarray:
    """Scale brightness and contrast by these factors, uint8 [H, W, 3]."""
    image = Image.fromarray(pixels)
    steps = [(ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast)]
    for enhance, factor in reversed(steps) if contrast_first else steps:
        image = enhance(image).enhance(factor)
    return np.asarray(image)


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian of `BLUR_KERNEL` taps and reflected borders, uint8 [H, W, 3]; equal channels only once."""
    equal = (pixels == pixels[:, :, :1]).all()
    planes = pixels[:, :, : 1 if equal else 3].transpose(2, 0, 1).astype(np.float32, order="C")  # [1 or 3, H, W]
    rows, columns = (_blur_matrix(size, sigma) for size in planes.shape[1:])
    blurred = np.clip(np.rint(rows @ planes @ columns.T), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.repeat(blurred, 3, axis=2) if equal else blurred


def _blur_matrix(size: int, sigma: float) -> np.ndarray:
    """Make a banded float32 [size, size]: row i contains the weight of each pixel, reflected ones included, in blurred
    pixel i."""
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
    """Fill a random rectangle of float32 [3, H, W] in place, with the configured probability; returns the image."""
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
    """Replace all channels by a random one, float32 [3, H, W] in place (CAJ, Ye et al. 2021); last, as released."""
    image[:] = image[rng.integers(3)]
    return image


def adaptive_gray(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace all channels by a random one or by the luma, or change nothing, float32 [3, H, W] in place (CAJ, Ye et
    al. 2021).

    As in the release, the probabilities are 1/4 for each channel, 1/8 for the luma and 1/8 for no change. It works on
    normalised pixels, so a gray picture's channels differ in mean and contrast.
    """
    choice = rng.integers(4)
    if choice < 3:
        image[:] = image[choice]
    elif rng.random() < 0.5:
        image[:] = np.tensordot(_LUMA, image, 1)
    return image


def augment(
    pixels: np.ndarray,
    infrared: bool,
    gray: bool,
    config: AugmentationConfig,
    rng: np.random.Generator,
    out: np.ndarray | None = None,
    second: bool = False,
) -> np.ndarray:
    """Augment a training picture: uint8 [H, W, 3] to float32 [3, H, W].

    gray: remove the colours of a visible picture (stage 1 of PMT). Padding and crop are AGW's, the channel
    augmentations at the end MUN's. out: where to write it. second: exchange channels, whatever is configured.
    """
    if spread := infrared and config.infrared_jitter:
        if rng.random() < 0.5:
            brightness, contrast = rng.uniform(1 - spread, 1 + spread, 2)
            pixels = jitter(pixels, brightness, contrast, contrast_first=rng.random() < 0.5)
        else:
            pixels = gaussian_blur(pixels, rng.uniform(*config.infrared_blur_sigma))
    if gray and not infrared:
        pixels = to_gray(pixels)
    padding = config.crop_padding
    top, left = rng.integers(0, 2 * padding + 1, 2) - padding if padding else (0, 0)
    image = normalise(pixels, top, left, rng.random() < config.flip, out)
    random_erasing(image, config, rng)
    if infrared and config.infrared_adaptive_gray:
        adaptive_gray(image, rng)
    elif second or (
        not infrared and config.visible_channel_exchange and rng.random() < config.visible_channel_exchange
    ):
        channel_exchange(image, rng)
    return image
