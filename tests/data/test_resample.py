"""Lanczos's filter against the installed Pillow's."""

import numpy as np
import pytest
from PIL import Image

from ms_vireid.data import resample
from ms_vireid.data.resample import lanczos

SIZES = [(384, 192), (128, 64), (288, 144), (1, 1), (3, 500), (500, 3), (300, 139), (700, 200), (17, 1000)]


@pytest.mark.parametrize("source", SIZES, ids=str)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "colour"])
def test_every_pixel_is_pillows(source, channels):
    # Black and white alone: the filter's overshoots are cut off, before and after the second pass.
    pixels = np.random.default_rng(0).integers(0, 2, (*source, *channels)).astype(np.uint8) * 255
    picture = Image.fromarray(pixels)
    for size in (*SIZES, (256, 128), (50, 50)):
        expected = np.asarray(picture.resize(size[::-1], Image.Resampling.LANCZOS))
        assert np.array_equal(lanczos(pixels, size), expected), size


def test_a_picture_of_the_size_is_left_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 6, 3), np.uint8)
    assert np.array_equal(lanczos(pixels, (12, 6)), pixels)


def test_the_order_of_the_passes_shows_where_the_height_shrinks_most(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 2, (100, 100)).astype(np.uint8) * 255
    found = {}
    for chooses in (True, False):
        monkeypatch.setattr(resample, "CHOOSES_ORDER", chooses)
        found[chooses] = [lanczos(pixels, size) for size in ((59, 80), (60, 80))]
    assert not np.array_equal(found[True][0], found[False][0])  # 41 rows less, and 20 columns
    assert np.array_equal(found[True][1], found[False][1])  # 40 rows less: not more than twice as many
