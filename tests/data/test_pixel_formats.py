"""What PNG and TIFF files can hold: each kind is decoded with its values whole, or refused with what to do."""

import zlib

import numpy as np
import pytest
from PIL import Image

from ms_vireid.command.errors import InputError, one_line
from ms_vireid.data.bit_depth import look_at, refuse_unreadable
from ms_vireid.data.pictures import open_picture, pixels_of, read_pixels
from ms_vireid.data.pixel_formats import is_high_bit_depth, to_8_bits, values_of
from ms_vireid.data.records import image_set

from .files import GRAY, GRAY_ALPHA, RGB, RGBA, TiffKind, chunk, tags_of, tiff_kinds, write_png, write_tiff

HEIGHT, WIDTH = 24, 20
LOW, HIGH = 51241, 52181
_rng = np.random.default_rng(0)
COUNTS = (LOW + _rng.random((HEIGHT, WIDTH)) * (HIGH - LOW)).astype(np.uint16)
COLOURS = _rng.integers(40000, 60000, (HEIGHT, WIDTH, 3)).astype(np.uint16)
ALPHA = _rng.integers(0, 65536, (HEIGHT, WIDTH, 1)).astype(np.uint16)
CHANNELS = "has several channels of 16 bits, which Pillow cuts to 8"
IN_8_BITS = "save it in 8 bits: magick IN -depth 8 OUT.png"
ONE_CHANNEL = f"{IN_8_BITS}; or save one channel: magick IN -channel R -separate -depth 16 OUT.png"
FLOATS = "save its values with tifffile: imwrite('OUT.tif', imread('IN.tif').astype('float32'))"
NEGATED = FLOATS.replace("imread", "-imread")
UNKNOWN = "has a damaged header, or is an unsupported kind of TIFF"


def levels(values, low, high):
    """The slow and obvious scaling."""
    scaled = [int((float(value) - low) * 255 / (high - low)) for value in np.asarray(values).reshape(-1)]
    return np.clip(scaled, 0, 255).astype(np.uint8).reshape(values.shape)


def check(path, values):
    low, high = float(values.min()), float(values.max())
    np.testing.assert_array_equal(read_pixels(path, True, (low, high)), levels(values, low, high))


def refusal(path):
    with pytest.raises(InputError) as refused:
        read_pixels(path, True, (0, 1000))
    return str(refused.value).removeprefix(f"{path}: ")


def is_taken(kind):
    """The kinds that docs/data.md promises."""
    plain = kind.planar == kind.fill == 1
    if kind.bits == 16 and kind.sample == "u":
        return plain and (kind.order, kind.photometric, kind.channels) in {("<", 0, 1), ("<", 1, 1), (">", 1, 1)}
    if kind.bits == 32 and kind.sample == "f":
        is_swapped = kind.order == ">" and kind.compression != "raw"
        return plain and (kind.photometric, kind.channels) == (1, 1) and not is_swapped
    colours = {2: {(0, 1), (1, 1), (3, 1)}, 4: {(0, 1), (1, 1), (3, 1)}}
    colours[8] = {(0, 1), (1, 1), (1, 2), (2, 3), (2, 4), (2, 5), (3, 1), (5, 4)}
    return plain and kind.sample == "u" and (kind.photometric, kind.channels) in colours.get(kind.bits, ())


def decoded(kind, values):
    """What Pillow has to decode to: a palette's colours stay numbers, and fewer bits are spread over 8."""
    if kind.bits < 8 and kind.photometric != 3:
        values = values * (255 // (2**kind.bits - 1))
    if kind.photometric == 0:
        values = (65535 if kind.bits == 16 else 255) - values
    return values[:, :, :4].squeeze()


@pytest.mark.parametrize(("sample", "bits"), sorted({(kind.sample, kind.bits) for kind in tiff_kinds()}))
def test_every_kind_of_tiff_keeps_its_values_or_is_refused(tmp_path, sample, bits):
    for kind in tiff_kinds():
        if (kind.sample, kind.bits) == (sample, bits):
            values = kind.values(HEIGHT, WIDTH)
            path = kind.write(tmp_path / "a.tif", values)
            pixels = pixels_or_refusal(path)
            if is_taken(kind):
                np.testing.assert_array_equal(pixels, decoded(kind, values), str(kind))
            else:
                assert isinstance(pixels, str), kind
                assert "magick" in pixels or "tifffile" in pixels, (kind, pixels)


def pixels_or_refusal(path):
    try:
        with open_picture(path) as image:
            return values_of(image) if is_high_bit_depth(image) else np.asarray(image)
    except InputError as error:
        return str(error)


def values_that_are_misread(kind, bits, remedy=FLOATS):
    return f"has {kind} values of {bits} bits, which Pillow misreads or cuts; {remedy}"


COLOURS_MISREAD = f"is a TIFF whose colours Pillow misreads; {IN_8_BITS}"


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (TiffKind("u", 16, 2, 3), f"{CHANNELS}; {ONE_CHANNEL}"),
        (TiffKind("u", 12, 1, 1), values_that_are_misread("unsigned", 12)),
        (TiffKind("i", 8, 1, 1), values_that_are_misread("signed", 8)),
        (TiffKind("i", 16, 1, 1), values_that_are_misread("signed", 16)),
        (TiffKind("f", 32, 0, 1), values_that_are_misread("floating-point", 32, NEGATED)),
        (TiffKind("f", 32, 1, 1, ">", "deflate"), values_that_are_misread("floating-point", 32)),
        (TiffKind("u", 16, 1, 1, fill=2), values_that_are_misread("unsigned", 16)),
        (TiffKind("u", 8, 2, 3, planar=2), COLOURS_MISREAD),
        (TiffKind("u", 8, 6, 3), COLOURS_MISREAD),
        (
            TiffKind("f", 64, 1, 1),
            f"{UNKNOWN}; replace it; or save colours in 8 bits: {IN_8_BITS.partition(': ')[2]}; or {FLOATS}",
        ),
    ],
)
def test_a_refused_tiff_says_what_it_is_and_how_to_convert_it(tmp_path, kind, line):
    assert refusal(kind.write(tmp_path / "a.tif", kind.values(HEIGHT, WIDTH))) == line


def test_jpeg_compression_and_palettes_of_8_bits_in_a_tiff_are_refused(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.tif", compression="jpeg")
    words = "is a TIFF with JPEG compression, whose damage Pillow does not report"
    assert refusal(tmp_path / "a.tif") == f"{words}; {IN_8_BITS}"
    tags = tags_of(WIDTH, HEIGHT, 8, 1, 3, t320=[255] * 768)  # where TIFF has 16
    path = write_tiff(tmp_path / "a.tif", ([bytes(HEIGHT * WIDTH)], tags))
    assert refusal(path) == f"is a TIFF whose colours Pillow misreads; {IN_8_BITS}"


def test_what_is_printed_of_many_pictures_ends_with_what_converts_them(tmp_path):
    paths = [write_png(tmp_path / f"{number}.png", COLOURS, RGB) for number in range(20)]
    problems, _ = look_at(image_set([(path, 1, 2, True) for path in paths]))
    with pytest.raises(InputError) as refused:
        refuse_unreadable(problems, ", or leave them out with --skip-broken")
    assert one_line(str(refused.value)).endswith(f"{ONE_CHANNEL[-48:]}, or leave them out with --skip-broken")


@pytest.mark.parametrize("further", [{"t259": [34712]}, {"photometric": 32803}, {"t339": [5]}, {"t258": [24]}])
def test_a_tiff_that_pillow_does_not_know_is_refused(tmp_path, further):
    path = write_tiff(tmp_path / "a.tif", ([bytes(WIDTH * HEIGHT * 4)], tags_of(WIDTH, HEIGHT, 16, **further)))
    assert refusal(path).startswith(UNKNOWN)


def test_offsets_may_have_64_bits_and_pictures_may_be_turned(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ([COUNTS.tobytes()], tags_of(WIDTH, HEIGHT, 16, t274=[6])), big=True)
    check(path, np.rot90(COUNTS, -1))


@pytest.mark.parametrize("filters", [False, True])
def test_a_gray_png_of_16_bits_keeps_them(tmp_path, filters):
    path = write_png(tmp_path / "a.png", COUNTS, GRAY, filters=filters)
    check(path, COUNTS)
    with open_picture(path) as image:
        np.testing.assert_array_equal(values_of(image), COUNTS)


@pytest.mark.parametrize(
    ("kind", "values", "further", "reason"),
    [
        (RGB, COLOURS, b"", CHANNELS),
        (GRAY_ALPHA, np.dstack([COUNTS, ALPHA]), b"", CHANNELS),
        (RGBA, np.dstack([COLOURS, ALPHA]), b"", CHANNELS),
        (GRAY, COUNTS, chunk(b"tRNS", b"\0\1"), "has 16 bits and a transparent value"),
    ],
)
def test_another_png_of_16_bits_is_refused_also_in_memory(tmp_path, kind, values, further, reason):
    path = write_png(tmp_path / "a.png", values, kind, further)
    assert refusal(path) == f"{reason}; {ONE_CHANNEL}"
    with Image.open(path) as image, pytest.raises(OSError, match=reason):
        pixels_of(image)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_open_picture_in_memory_has_the_pixels_of_its_file(tmp_path, suffix):
    white = TiffKind("u", 16, 0, 1)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        write_png(path, COUNTS, GRAY)
    else:
        white.write(path, 65535 - COUNTS[:, :, None])
    for load in (False, True):
        with Image.open(path) as image:
            if load:
                image.load()
            np.testing.assert_array_equal(pixels_of(image, True, (LOW, HIGH)), levels(COUNTS, LOW, HIGH))


def test_a_tiff_without_all_of_its_pixels_is_refused(tmp_path):
    tags = tags_of(WIDTH, HEIGHT, 16)
    half = COUNTS.tobytes()[: COUNTS.nbytes // 2]
    deflated = bytearray(zlib.compress(COUNTS.tobytes()))
    deflated[-1] ^= 1
    for chunks, further, words in (
        ([half], {}, "parts of its pixels are missing"),
        ([half], {278: [HEIGHT // 2]}, "parts of its pixels are missing"),
        ([bytes(deflated)], {259: [8]}, "incorrect data check"),
        ([zlib.compress(COUNTS.tobytes())[:-9]], {259: [8]}, "compressed pixels are cut off"),
        ([zlib.compress(bytes(1 << 28))], {259: [8]}, "compressed pixels are cut off, or more than the picture has"),
    ):
        path = write_tiff(tmp_path / "a.tif", (chunks, tags | further))
        with pytest.raises(InputError, match=words):
            read_pixels(path)
    content = write_tiff(path, ([COUNTS.tobytes()], tags)).read_bytes()
    moved = content.replace((8).to_bytes(4, "little"), (200).to_bytes(4, "little"))
    for damaged in (moved, content[:-30], content[:50]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"pixels reach beyond its end|pixels are missing|damaged header"):
            read_pixels(path)


@pytest.mark.parametrize("compression", [1, 8])
def test_strips_that_share_bytes_are_refused(tmp_path, compression):
    """A file of kilobytes could take minutes."""
    row = COUNTS[:1].tobytes() if compression == 1 else zlib.compress(COUNTS[:1].tobytes())
    tags = tags_of(WIDTH, HEIGHT, 16, t278=[1], t259=[compression])
    whole = write_tiff(tmp_path / "a.tif", ([row, *[b""] * (HEIGHT - 1)], tags)).read_bytes()
    for first, other in ((8, 8 + len(row)), (len(row), 0)):  # offsets, sizes
        numbers = np.array([first] + [other] * (HEIGHT - 1), "<u4").tobytes()
        assert whole.count(numbers) == 1
        whole = whole.replace(numbers, np.full(HEIGHT, first, "<u4").tobytes())
    (tmp_path / "a.tif").write_bytes(whole)
    with pytest.raises(InputError, match="parts of its pixels overlap"):
        read_pixels(tmp_path / "a.tif")


@pytest.mark.parametrize("size", [(1, 65_536), (65_536, 1)])
def test_a_picture_of_an_endless_side_is_refused(tmp_path, size):
    Image.new("L", size).save(tmp_path / "a.tif", compression="tiff_adobe_deflate")
    with pytest.raises(InputError, match=rf"it is {size[0]}x{size[1]} pixels; a side has at most 65,535"):
        read_pixels(tmp_path / "a.tif")
    Image.new("L", (1, 65_535)).save(tmp_path / "b.tif")
    assert read_pixels(tmp_path / "b.tif").shape == (65_535, 1, 3)


def test_directories_in_a_circle_end(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ([COUNTS.tobytes()], tags_of(WIDTH, HEIGHT, 16)))
    content = path.read_bytes()
    path.write_bytes(content[:-4] + content[4:8])
    check(path, COUNTS)


def test_a_damaged_png_of_16_bits_is_refused(tmp_path):
    path = write_png(tmp_path / "a.png", COUNTS, GRAY)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png: cannot be decoded"):
        read_pixels(path)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_many_pixels_are_scaled_in_strips(monkeypatch, kind):
    monkeypatch.setattr("ms_vireid.data.pixel_formats._STRIP", 50)
    values = np.random.default_rng(0).normal(60, 12, (301, 11)).astype(kind)
    np.testing.assert_array_equal(to_8_bits(values, (20, 99.5)), levels(values, 20, 99.5))
