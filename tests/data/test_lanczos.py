"""Lanczos by this project's own loops: the pixels are Pillow's, whatever the sizes."""

import numpy as np
import pytest
from PIL import Image, __version__

from ms_vireid.data.lanczos import resize

OF_PILLOW = int(__version__.split(".")[0])


def by_pillow(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By Pillow 13. Earlier ones, which Python 3.10 has, always resize the width first, and so are asked twice where 13
    begins with the height."""
    (height, width), (rows, columns) = pixels.shape[:2], size
    steps = [size]
    if OF_PILLOW < 13 and height - rows > max(0, 2 * (width - columns)):
        steps = [(rows, width), size]
    for step in steps:
        gray = pixels.ndim == 2 or pixels.shape[2] == 1
        picture = Image.fromarray(pixels.reshape(pixels.shape[:2]) if gray else pixels)
        pixels = np.asarray(picture.resize(step[::-1], Image.Resampling.LANCZOS))
    return pixels.reshape(*size, -1)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Black and white alone: every edge overshoots, and is clipped."""
    return np.random.default_rng(0).choice(np.uint8([0, 255]), (height, width, channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((96, 48), (64, 32)),
        ((40, 20), (64, 32)),
        ((200, 50), (64, 32)),  # the height first: it shrinks by more than twice what the width does
        ((70, 28), (64, 32)),  # the height first, the width grows
        ((70, 35), (64, 32)),  # the width first: exactly twice
        ((64, 32), (64, 32)),
        ((1, 1), (5, 4)),
    ],
    ids=str,
)
def test_the_pixels_are_pillows(before, after, channels):
    pixels = noise(*before, channels)
    np.testing.assert_array_equal(resize(pixels, after), by_pillow(pixels, after))


def test_the_pixels_are_pillows_at_any_size():
    sizes = np.random.default_rng(1).integers(1, 150, (60, 4))
    for height, width, rows, columns in map(tuple, sizes.tolist()):
        pixels = noise(height, width)
        np.testing.assert_array_equal(resize(pixels, (rows, columns)), by_pillow(pixels, (rows, columns)))


def test_pixels_that_are_a_view_or_cannot_be_written_are_resized_too():
    pixels = noise(50, 40)[::-1]
    pixels.flags.writeable = False
    np.testing.assert_array_equal(resize(pixels, (30, 20)), by_pillow(pixels, (30, 20)))
