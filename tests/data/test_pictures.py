"""How a picture file is opened and decoded, and which files of a folder are pictures."""

import os

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from ms_vireid.command.errors import InputError
from ms_vireid.data import pictures
from ms_vireid.data.pictures import open_picture, pixels_of, read_pixels

from .files import tags_of, write_tiff


def save(path, mode="RGB", size=(4, 3), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("values", "kind", "given", "shown"),
    [
        ([0, 257, 32768, 65535], np.uint16, None, [0, 1, 127, 255]),
        ([0, 1000, 1100, 1255, 1510, 60000], np.uint16, (1000, 1510), [0, 0, 50, 127, 255, 255]),
        ([0, 1000, 1100, 1255, 1510, 60000], np.float32, (1000, 1510), [0, 0, 50, 127, 255, 255]),
        ([np.nan, np.inf, -np.inf, 21.5], np.float32, (20, 23), [0, 255, 0, 127]),
    ],
)
def test_values_of_a_range_become_black_to_white(tmp_path, values, kind, given, shown):
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([values], kind)).save(path)
    assert read_pixels(path, True, given).tolist() == [shown]
    assert read_pixels(path, False, given).tolist() == [[[level] * 3 for level in shown]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_32_bits_are_refused_without_a_range(mode, tmp_path):
    words = r"its pixels are (int|float)32, and no range of them is known: data\.sixteen_bit=\[low, high\]"
    with pytest.raises(OSError, match=words):
        pixels_of(Image.new(mode, (4, 3)))
    if mode == "F":
        with pytest.raises(InputError, match=words):
            read_pixels(save(tmp_path / "a.tif", mode))


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
    by_pillow = pictures._decoded
    monkeypatch.setattr(pictures, "_decoded", lambda *given: decoded.append(given) or by_pillow(*given))
    with Image.open(path) as image:
        assert np.array_equal(read_pixels(path), image.convert("RGB"))
        assert np.array_equal(read_pixels(path, gray=True), image if mode == "L" else image.convert("RGB"))
    assert len(decoded) == (2 if mode == "CMYK" else 0)  # others by simplejpeg, in half of the time


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
    noise().save(tmp_path / "mpo.jpg", "MPO", save_all=True, append_images=[noise().reduce(2)], exif=exif(6))
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


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM"])
def test_a_format_is_known_by_its_content(kind, tmp_path):
    path = save(tmp_path / "a.jpg", format=kind)
    with pytest.raises(InputError, match=r"a\.jpg: .*it is none of JPEG, PNG, BMP, WEBP, TIFF"), open_picture(path):
        pass


def frames(count=5, mode="RGB", size=(6, 4)):
    return [Image.new(mode, size, tuple([20 * i] * len(mode)) if len(mode) > 1 else 20 * i) for i in range(count)]


@pytest.mark.parametrize(
    ("suffix", "kind", "count"), [("png", "PNG", 5), ("webp", "WEBP", 5), ("tif", "TIFF", 5), ("jpg", "MPO", 2)]
)
def test_a_file_of_several_pictures_is_refused_with_their_number(tmp_path, suffix, kind, count):
    first, *others = frames(count)
    first.save(tmp_path / f"walk.{suffix}", kind, save_all=True, append_images=others)
    with pytest.raises(InputError) as refused:
        read_pixels(tmp_path / f"walk.{suffix}")
    where = tmp_path / f"walk.{suffix}"
    assert str(refused.value) == f"{where}: holds {count} pictures; save each as a file of its own, or remove it"
    first.save(where, kind, save_all=True)
    assert np.array_equal(read_pixels(where), first)


@pytest.mark.parametrize("bits", [8, 16])
def test_pages_stacks_and_thumbnails_of_a_tiff_are_refused(tmp_path, bits):
    page = ([np.arange(24, dtype=f"<u{bits // 8}").tobytes()], tags_of(6, 4, bits))
    small = ([bytes(6)], tags_of(3, 2, 8, t254=[1]))
    mask = ([bytes(6)], tags_of(3, 2, 8, t254=[4]))
    imagej = (page[0], page[1] | {270: b"ImageJ=1.53t\nimages=5\nslices=5\n\0"})
    tifffile = (page[0], page[1] | {270: b'{"shape": [5, 4, 6], "truncated": true}\0'})
    counted = "pictures; save each as a file of its own, or remove it"
    alone = "holds only a thumbnail or a mask; save the picture itself, or remove it"
    for pages, line in (
        ([page] * 5, f"holds 5 {counted}"),
        ([page, small], f"holds 2 {counted}"),
        ([mask, page], f"holds 2 {counted}"),
        ([imagej], f"holds several {counted}"),
        ([tifffile], f"holds several {counted}"),
        ([small], alone),
        ([mask], alone),
    ):
        path = write_tiff(tmp_path / "a.tif", *pages)
        with pytest.raises(InputError) as refused:
            read_pixels(path)
        assert str(refused.value) == f"{path}: {line}"
    for text in (b"ImageJ=1.53t\nimages=1\nmin=0\n\0", b'{"shape": [4, 6]}\0'):
        assert read_pixels(write_tiff(path, (page[0], page[1] | {270: text}))).shape == (4, 6, 3)


def test_previews_behind_a_phones_picture_are_none(tmp_path):
    first, second = frames(2, size=(64, 48))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second.reduce(4), second.reduce(2)])
    assert read_pixels(tmp_path / "a.jpg").shape == (48, 64, 3)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second, second.reduce(2)])
    with pytest.raises(InputError, match="holds 2 pictures"):
        read_pixels(tmp_path / "a.jpg")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 343279349\n"


def test_pointers_of_git_lfs_and_git_annex_are_said_to_be_ones(tmp_path):
    (tmp_path / "a.jpg").write_text(LFS)
    with pytest.raises(InputError, match=r"a\.jpg: is a Git LFS pointer, not the file itself.*; run git lfs pull in"):
        read_pixels(tmp_path / "a.jpg")
    key = "annex/objects/SHA256E-s3417--" + "ab" * 32 + ".jpg"
    (tmp_path / "unlocked.jpg").write_text(f"/{key}\n")
    (tmp_path / "locked.jpg").symlink_to(f"../.git/{key}")
    for name in ("unlocked.jpg", "locked.jpg"):
        words = rf"{name}: is a git-annex pointer, not the file itself; run git annex get in its folder"
        with pytest.raises(InputError, match=words):
            read_pixels(tmp_path / name)
    (tmp_path / "gone.jpg").symlink_to("elsewhere.jpg")
    with pytest.raises(InputError, match=r"gone\.jpg: .*it does not exist"):
        read_pixels(tmp_path / "gone.jpg")


def test_folders_pipes_and_circles_are_no_pictures(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    for name, words in (("folder", "not a regular file"), ("pipe", "not a regular file"), ("circle", "symbolic links")):
        with pytest.raises(InputError, match=rf"{name}\.jpg: cannot be decoded .*{words}"):
            read_pixels(tmp_path / f"{name}.jpg")
