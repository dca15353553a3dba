"""How a picture file is opened and decoded, and which files of a folder are pictures."""

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from ms_vireid.command.errors import InputError
from ms_vireid.data import pictures
from ms_vireid.data.layout import find_pictures
from ms_vireid.data.pictures import open_picture, pixels_of, read_pixels


def save(path, mode="RGB", size=(4, 3), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    levels = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert np.array_equal(read_pixels(tmp_path / "deep.png", gray=True), [[0, 1, 127, 255]])
    assert np.array_equal(read_pixels(tmp_path / "deep.png"), np.repeat([[[0], [1], [127], [255]]], 3, axis=2))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_32_bits_are_refused(mode, tmp_path):
    path = save(tmp_path / "deep.tif", mode)
    with pytest.raises(InputError, match=r"deep\.tif: .*32 bits: save it with 8 or 16"):
        read_pixels(path)


def noise(mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    return Image.fromarray(pixels).resize((45, 37), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30}]
)
def test_a_jpeg_has_the_pixels_that_pillow_decodes(tmp_path, monkeypatch, mode, options):
    path, decoded = tmp_path / "a.jpg", []
    noise(mode).save(path, **options)
    monkeypatch.setattr(pictures, "pixels_of", lambda *given: decoded.append(given) or pixels_of(*given))
    with Image.open(path) as image:
        assert np.array_equal(read_pixels(path), image.convert("RGB"))
        assert np.array_equal(read_pixels(path, gray=True), image if mode == "L" else image.convert("RGB"))
    assert len(decoded) == (2 if mode == "CMYK" else 0)  # others by simplejpeg, in half of the time


def test_a_jpeg_with_a_fault_that_pillow_overlooks_is_read_as_by_pillow(tmp_path):
    path = tmp_path / "a.jpg"
    noise().save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes(5) + content[-2:])  # more than its pixels take
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(path.read_bytes())
    with Image.open(path) as image:
        assert np.array_equal(read_pixels(path), image)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM"])
def test_a_format_is_known_by_its_content(kind, tmp_path):
    path = save(tmp_path / "a.jpg", format=kind)
    with pytest.raises(InputError, match=r"a\.jpg: .*it is none of JPEG, PNG, BMP, WEBP, TIFF"), open_picture(path):
        pass


def test_links_that_go_in_a_circle_and_second_names_add_no_picture(tmp_path):
    path = save(tmp_path / "pictures/0001/a.png")
    (tmp_path / "pictures/0001/up").symlink_to("..")
    (tmp_path / "pictures/0002").symlink_to("0001")
    (path.parent / "b.png").symlink_to("a.png")
    save(tmp_path / "elsewhere/c.png")
    (tmp_path / "pictures/more").symlink_to(tmp_path / "elsewhere")
    found = find_pictures(tmp_path / "pictures")
    assert sorted((tmp_path / "pictures" / path).resolve().name for path in found) == ["a.png", "c.png"]
