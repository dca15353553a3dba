"""How a picture file is opened and decoded, and which files of a folder are pictures."""

import numpy as np
import pytest
import simplejpeg
from PIL import ExifTags, Image, ImageOps

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
def test_pixels_of_32_bits_are_refused_without_a_range(mode, tmp_path):
    path = save(tmp_path / "deep.tif", mode)
    with pytest.raises(InputError, match=r"deep\.tif: .*32 bits, and no range .*: data\.sixteen_bit=\[low, high\]"):
        read_pixels(path)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_values_of_a_range_become_black_to_white(tmp_path, kind):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.array([[0, 1000, 1100, 1255, 1510, 60000]], kind)).save(path)
    assert np.array_equal(read_pixels(path, True, (1000, 1510)), [[0, 0, 50, 127, 255, 255]])
    assert np.array_equal(read_pixels(path, False, (1000, 1510))[:, :, 2], [[0, 0, 50, 127, 255, 255]])


def test_pixels_that_are_no_numbers_are_black_and_endless_ones_at_the_ends(tmp_path):
    Image.fromarray(np.array([[np.nan, np.inf, -np.inf, 21.5]], np.float32)).save(tmp_path / "deep.tif")
    assert np.array_equal(read_pixels(tmp_path / "deep.tif", True, (20, 23)), [[0, 255, 0, 127]])


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_sixteen_bits_are_turned_too(tmp_path, suffix):
    levels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    Image.fromarray(257 * levels).save(tmp_path / f"deep.{suffix}", exif=exif(6))
    assert np.array_equal(read_pixels(tmp_path / f"deep.{suffix}", gray=True), np.rot90(levels, -1))


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


def exif(orientation):
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    return data


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_viewers_show_it(tmp_path, suffix, orientation, mode):
    path = tmp_path / f"a.{suffix}"
    noise(mode).save(path, exif=exif(orientation), **({"lossless": True} if suffix == "webp" else {}))
    with path.open("rb") as file, Image.open(file) as image:
        expected = ImageOps.exif_transpose(image)
        assert np.array_equal(read_pixels(path), expected.convert("RGB"))
        assert read_pixels(path).shape == ((37, 45, 3) if orientation <= 4 else (45, 37, 3))
    with path.open("rb") as file, Image.open(file) as image:
        assert np.array_equal(pixels_of(image), expected.convert("RGB"))
        assert np.array_equal(pixels_of(expected), expected.convert("RGB"))  # a user's image, turned before
    if mode == "L" and suffix != "webp":
        assert np.array_equal(read_pixels(path, gray=True), expected)


def test_a_jpeg_that_only_pillow_decodes_and_a_phones_mpo_are_turned(tmp_path):
    noise("CMYK").save(tmp_path / "ink.jpg", exif=exif(6))
    noise().save(tmp_path / "mpo.jpg", "MPO", save_all=True, append_images=[noise()], exif=exif(6))
    for name in ("ink.jpg", "mpo.jpg"):
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(read_pixels(tmp_path / name), ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("content", [b"", b"II", b"MM\0*\0\0\0\x08\0\1\x01\x12", exif(9).tobytes(), b"\xff" * 40])
def test_an_exif_that_says_nothing_turns_nothing(tmp_path, content):
    path = tmp_path / "a.jpg"
    noise().save(path, exif=b"Exif\0\0" + content.removeprefix(b"Exif\0\0"))
    with Image.open(path) as image:
        assert np.array_equal(read_pixels(path), image)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "P", "L", "RGB"])
def test_transparent_pixels_are_shown_over_gray(tmp_path, mode):
    path, options = tmp_path / "a.png", {}
    if mode in ("P", "L", "RGB"):  # one colour, or one of the palette's, is transparent
        image = Image.new(mode, (2, 1))
        image.putdata([0, 1] if mode == "P" else [(0, 0, 0), (200, 200, 200)] if mode == "RGB" else [0, 200])
        if mode == "P":
            image.putpalette([0, 0, 0, 200, 200, 200])
        options["transparency"] = (0, 0, 0) if mode == "RGB" else 0
    else:
        image = Image.new("RGBA", (2, 1))
        image.putdata([(0, 0, 0, 0), (200, 200, 200, 255)])
        image = image.convert(mode)
    if mode == "RGBa":  # in memory alone
        shown = pixels_of(image)
    else:
        image.save(path, **options)
        shown = read_pixels(path)
        gray = read_pixels(path, gray=True)
        assert gray.ndim == (2 if mode in ("L", "LA") else 3)
        assert np.array_equal(np.unique(gray), [128, 200])
    assert np.array_equal(shown, [[[128] * 3, [200] * 3]])


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_picture_with_a_palette_has_its_colours(tmp_path, suffix):
    noise().quantize(16).save(tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.mode == "P"
        assert np.array_equal(read_pixels(tmp_path / f"a.{suffix}", gray=True), image.convert("RGB"))


def test_half_transparent_pixels_are_mixed_with_gray():
    assert np.array_equal(pixels_of(Image.new("RGBA", (1, 1), (228, 28, 128, 128))), [[[178, 78, 128]]])


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
