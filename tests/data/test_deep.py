"""Pixels of 16 and 32 bits: every meaning that a PNG or TIFF can give its numbers is read right, or refused by name."""

import zlib

import numpy as np
import pytest
from PIL import Image

from ms_vireid.command.errors import InputError
from ms_vireid.data.deep import TAIL, Deep, levels_of
from ms_vireid.data.pictures import open_picture, pixels_of, read_pixels

from .files import GRAY, GRAY_ALPHA, RGB, RGBA, chunk, tags_of, write_png, write_tiff

HEIGHT, WIDTH = 24, 20
LOW, HIGH = 51241, 52181
_rng = np.random.default_rng(0)
COUNTS = (LOW + _rng.random((HEIGHT, WIDTH)) * (HIGH - LOW)).astype(np.uint16)
COLOURS = _rng.integers(40000, 60000, (HEIGHT, WIDTH, 3)).astype(np.uint16)
ALPHA = _rng.integers(0, 65536, (HEIGHT, WIDTH, 1)).astype(np.uint16)


def levels(values, low, high):
    """The slow and obvious scaling."""
    scaled = [int((float(value) - low) * 255 / (high - low)) for value in np.asarray(values).reshape(-1)]
    return np.clip(scaled, 0, 255).astype(np.uint8).reshape(values.shape)


def over_gray(shown, alpha):
    """Blend uint8 pixels with gray by the upper byte of alpha."""
    share = (alpha.reshape(HEIGHT, WIDTH) >> 8) / 255
    share = share if shown.ndim == 2 else share[:, :, None]
    return shown * share + 128 * (1 - share)


def check(path, values, low=None, high=None):
    low, high = (float(values.min()), float(values.max())) if low is None else (low, high)
    np.testing.assert_array_equal(read_pixels(path, True, (low, high)), levels(values, low, high))


@pytest.mark.parametrize("filters", [False, True])
@pytest.mark.parametrize(("kind", "values"), [(GRAY, COUNTS), (RGB, COLOURS)])
def test_a_png_of_16_bits_keeps_them(tmp_path, kind, values, filters):
    path = write_png(tmp_path / "a.png", values, kind, filters=filters)
    check(path, values)
    with open_picture(path) as opened:
        np.testing.assert_array_equal(opened.deep().values, values)


def test_equal_channels_keep_as_many_levels_as_one(tmp_path):
    gray = write_png(tmp_path / "gray.png", COUNTS, GRAY)
    colours = write_png(tmp_path / "rgb.png", np.dstack([COUNTS] * 3), RGB)
    shown = [read_pixels(path, False, (LOW, HIGH)) for path in (gray, colours)]
    np.testing.assert_array_equal(*shown)
    assert levels_of(shown[0]) > 100


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("kind", "values"), [(GRAY_ALPHA, COUNTS), (RGBA, COLOURS)])
def test_transparent_pixels_of_16_bits_are_shown_over_gray(tmp_path, kind, values, suffix):
    pixels = np.concatenate([values.reshape(HEIGHT, WIDTH, -1), ALPHA], 2)
    if suffix == "png":
        path = write_png(tmp_path / "a.png", pixels, kind)
    else:
        photometric = 2 if kind == RGBA else 1
        tags = tags_of(WIDTH, HEIGHT, 16, pixels.shape[2], photometric, t338=[2])
        path = write_tiff(tmp_path / "a.tif", ([pixels.astype("<u2").tobytes()], tags))
    shown = read_pixels(path, True, (40000, 60000))
    assert abs(shown - over_gray(levels(values, 40000, 60000), ALPHA)).max() <= 1  # Pillow rounds
    with open_picture(path) as opened:
        low, high = opened.deep().range()
    seen = values[ALPHA[:, :, 0] >= 256]
    assert (low, high) == tuple(
        np.sort(seen, axis=None)[[int(TAIL * (seen.size - 1)), -1 - int(TAIL * (seen.size - 1))]]
    )


@pytest.mark.parametrize(("kind", "values"), [(GRAY, COUNTS), (RGB, COLOURS)])
def test_one_value_of_16_bits_may_be_transparent(tmp_path, kind, values):
    clear = np.atleast_1d(values[0, 0])
    path = write_png(tmp_path / "a.png", values, kind, chunk(b"tRNS", clear.astype(">u2").tobytes()))
    is_clear = (values.reshape(HEIGHT, WIDTH, -1) == clear).all(2)
    shown = read_pixels(path, True, (40000, 60000))
    assert (shown[is_clear] == 128).all()
    np.testing.assert_array_equal(shown[~is_clear], levels(values, 40000, 60000)[~is_clear])
    if kind == GRAY:  # of several channels Pillow keeps 8 bits: such a picture is refused in memory
        with Image.open(path) as image:
            assert np.array_equal(pixels_of(image), read_pixels(path))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_a_tiff_of_any_type_is_read_as_it_means(tmp_path, kind, order):
    values = COUNTS.astype(np.int64) - (0 if kind[0] == "u" else 51700)
    values = (values // 8 if kind == "i1" else values * 70000 if kind in ("u4", "i8") else values).astype(kind)
    sample = {"u": 1, "i": 2, "f": 3}[kind[0]]
    tags = tags_of(WIDTH, HEIGHT, 8 * int(kind[1]), t339=[sample])
    check(write_tiff(tmp_path / "a.tif", ([values.astype(order + kind).tobytes()], tags), order=order), values)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u2", "u4", "f4"])
@pytest.mark.parametrize("planar", [False, True])
def test_channels_of_a_tiff_may_lie_apart(tmp_path, order, kind, planar):
    stored = COLOURS.astype(order + kind)
    chunks = [stored[:, :, i].tobytes() for i in range(3)] if planar else [stored.tobytes()]
    tags = tags_of(WIDTH, HEIGHT, 8 * int(kind[1]), 3, 2, t284=[1 + planar], t339=[3 if kind == "f4" else 1] * 3)
    check(write_tiff(tmp_path / "a.tif", (chunks, tags), order=order), COLOURS)


def test_white_may_be_0(tmp_path):
    for bits, kind in ((16, "<u2"), (32, "<u4")):
        values = (1 << bits) - 1 - COUNTS.astype(np.int64)
        tags = tags_of(WIDTH, HEIGHT, bits, photometric=0)
        check(write_tiff(tmp_path / "a.tif", ([values.astype(kind).tobytes()], tags)), COUNTS)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
@pytest.mark.parametrize("photometric", [0, 1])
def test_packed_bits_are_unpacked_and_full_is_their_own(tmp_path, bits, photometric):
    most = (1 << bits) - 1
    values = COUNTS & most
    stored = most - values if photometric == 0 else values
    rows = [
        np.packbits(((stored[y][:, None] >> np.arange(bits)[::-1]) & 1).reshape(-1)).tobytes() for y in range(HEIGHT)
    ]
    path = write_tiff(tmp_path / "a.tif", ([b"".join(rows)], tags_of(WIDTH, HEIGHT, bits, photometric=photometric)))
    check(path, values)
    np.testing.assert_array_equal(read_pixels(path, True), levels(values, 0, most))


def packed(content):
    """PackBits without a repetition."""
    parts = (content[i : i + 128] for i in range(0, len(content), 128))
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


def lzw(content):
    """LZW by codes of 9 bits alone: the table is cleared before it is full."""
    codes = []
    for i, byte in enumerate(content):
        codes += [256, byte] if i % 200 == 0 else [byte]
    codes.append(257)
    return np.packbits([(code >> bit) & 1 for code in codes for bit in range(8, -1, -1)]).tobytes()


@pytest.mark.parametrize(("code", "compress"), [(5, lzw), (8, zlib.compress), (32946, zlib.compress), (32773, packed)])
@pytest.mark.parametrize("rows", [HEIGHT, 7])
def test_a_compressed_tiff_is_read(tmp_path, code, compress, rows):
    padded = np.pad(COUNTS, ((0, 4), (0, 0)))  # as some programs store the last strip
    strips = [compress(padded[y : y + rows].astype("<u2").tobytes()) for y in range(0, HEIGHT, rows)]
    check(write_tiff(tmp_path / "a.tif", (strips, tags_of(WIDTH, HEIGHT, 16, t259=[code], t278=[rows]))), COUNTS)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [1, 3])
def test_differences_are_added_up(tmp_path, order, channels):
    values = COUNTS[:, :, None] if channels == 1 else COLOURS
    differences = np.diff(values, axis=1, prepend=np.zeros((HEIGHT, 1, channels), np.uint16)).astype(f"{order}u2")
    tags = tags_of(WIDTH, HEIGHT, 16, channels, 1 if channels == 1 else 2, t259=[8], t317=[2])
    path = write_tiff(tmp_path / "a.tif", ([zlib.compress(differences.tobytes())], tags), order=order)
    check(path, values.squeeze())
    floats = values.astype(">f4").view(np.uint8).reshape(HEIGHT, WIDTH * channels, 4).transpose(0, 2, 1)
    floats = floats.reshape(HEIGHT, -1, channels)
    floats = np.diff(floats, axis=1, prepend=np.zeros((HEIGHT, 1, channels), np.uint8))
    tags |= {258: [32] * channels, 339: [3] * channels, 317: [3]}
    path = write_tiff(tmp_path / "b.tif", ([zlib.compress(floats.tobytes())], tags), order=order)
    check(path, values.squeeze())


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("predictor", [1, 2])
def test_tiles_are_put_together(tmp_path, planar, predictor):
    large = np.zeros((32, 32, 3), np.uint16)
    large[:HEIGHT, :WIDTH] = COLOURS
    tiles = []
    for plane in ([0], [1], [2]) if planar else ([0, 1, 2],):
        for y, x in ((0, 0), (0, 16), (16, 0), (16, 16)):
            tile = large[y : y + 16, x : x + 16, plane]
            first = np.zeros((16, 1, len(plane)), np.uint16)
            tiles.append(zlib.compress((np.diff(tile, axis=1, prepend=first) if predictor == 2 else tile).tobytes()))
    further = {"t322": [16], "t323": [16], "t259": [8], "t284": [1 + planar], "t317": [predictor]}
    check(write_tiff(tmp_path / "a.tif", (tiles, tags_of(WIDTH, HEIGHT, 16, 3, 2, **further))), COLOURS)


def test_offsets_may_have_64_bits_and_pictures_may_be_turned(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ([COUNTS.tobytes()], tags_of(WIDTH, HEIGHT, 16, t274=[6])), big=True)
    check(path, np.rot90(COUNTS, -1))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"photometric": 3}, "16 bits in a palette"),
        ({"photometric": 5, "channels": 4}, "16 bits in CMYK"),
        ({"photometric": 6, "channels": 3}, "16 bits in YCbCr"),
        ({"photometric": 8, "channels": 3}, "16 bits in CIELab"),
        ({"photometric": 32803}, "16 bits in a colour filter array"),
        ({"photometric": 0, "t339": [2]}, "white as 0"),
        ({"photometric": 0, "t339": [3]}, "white as 0"),
        ({"channels": 4, "photometric": 2, "t338": [1]}, "1 more channels"),  # multiplied by alpha
        ({"channels": 4, "photometric": 2}, "1 more channels"),
        ({"channels": 5}, "4 more channels"),
        ({"t339": [5]}, "sample format 5"),
        ({"t339": [1, 2], "channels": 2}, "sample format 0"),
        ({"t258": [24]}, "24 bits"),
        ({"t258": [8, 16, 16], "channels": 3, "photometric": 2}, "different bits"),
        ({"t259": [7]}, "compression 7"),
        ({"t259": [34712]}, "compression 34712"),
        ({"t266": [2]}, "reversed bits"),
        ({"t259": [8], "t317": [9]}, "predictor 9"),
    ],
)
def test_a_tiff_whose_meaning_is_not_clear_is_refused_by_name(tmp_path, what, words):
    content = zlib.compress(bytes(WIDTH * HEIGHT * 10)) if what.get("t259") == [8] else bytes(WIDTH * HEIGHT * 10)
    path = write_tiff(tmp_path / "a.tif", ([content], tags_of(WIDTH, HEIGHT, 16, **what)))
    with pytest.raises(InputError, match=rf"a\.tif: cannot be decoded as a picture \(.*{words}.*; (replace|save)"):
        read_pixels(path, True, (0, 1))


def test_values_that_nothing_calls_black_and_white_are_refused_without_a_range(tmp_path):
    tags = tags_of(WIDTH, HEIGHT, 16, t339=[2])
    path = write_tiff(tmp_path / "a.tif", ([COUNTS.tobytes()], tags))
    with pytest.raises(InputError, match=r"pixels are int16, and no range .*: data\.sixteen_bit=\[low, high\]"):
        read_pixels(path)


def test_a_tiff_without_all_of_its_pixels_is_refused(tmp_path):
    tags = tags_of(WIDTH, HEIGHT, 16)
    half = COUNTS.tobytes()[: COUNTS.nbytes // 2]
    cut = write_tiff(tmp_path / "cut.tif", ([COUNTS.tobytes()], tags))
    content = cut.read_bytes()
    cut.write_bytes(content[:100] + content[100 + COUNTS.nbytes :])  # its directory lies behind
    deflated = bytearray(zlib.compress(COUNTS.tobytes()))
    deflated[-1] ^= 1
    for chunks, further, words in (
        ([half], {}, "parts of its pixels are missing"),
        ([half] * 2, {}, "parts of its pixels are missing"),
        ([], {}, "its tag 273 is damaged"),
        ([bytes(deflated)], {259: [8]}, "incorrect data check"),
        ([zlib.compress(COUNTS.tobytes())[:-9]], {259: [8]}, "end early"),
    ):
        path = write_tiff(tmp_path / "a.tif", (chunks, tags | further))
        with pytest.raises(InputError, match=words):
            read_pixels(path)
    with pytest.raises(InputError, match=r"damaged|cut off"):
        read_pixels(cut)


def test_8_bits_of_a_damaged_tiff_are_refused_too(tmp_path):
    content = bytearray(zlib.compress(bytes(HEIGHT * WIDTH)))
    content[-1] ^= 1
    path = write_tiff(tmp_path / "a.tif", ([bytes(content)], tags_of(WIDTH, HEIGHT, 8, t259=[8])))
    with pytest.raises(InputError, match="incorrect data check"):
        read_pixels(path)
    path = write_tiff(
        tmp_path / "a.tif", ([bytes(HEIGHT * WIDTH)], tags_of(WIDTH, HEIGHT, 8) | {262: [3], 320: [255] * 768})
    )
    with pytest.raises(InputError, match="palette has 8 bits"):
        read_pixels(path)


@pytest.mark.parametrize("code", [258, 262, 339, 273])
def test_a_damaged_tag_is_not_passed_over(tmp_path, code):
    path = write_tiff(tmp_path / "a.tif", ([COUNTS.tobytes()], tags_of(WIDTH, HEIGHT, 16, t339=[1])))
    content = path.read_bytes()
    entry = content.rindex(code.to_bytes(2, "little") + b"\4\0\1\0")
    path.write_bytes(content[: entry + 2] + b"\xff" + content[entry + 3 :])
    with pytest.raises(InputError, match=f"its tag {code} is damaged"):
        read_pixels(path)


def test_directories_in_a_circle_end(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ([COUNTS.tobytes()], tags_of(WIDTH, HEIGHT, 16)))
    content = path.read_bytes()
    path.write_bytes(content[:-4] + content[4:8])
    with pytest.raises(InputError, match="directories are damaged"):
        read_pixels(path)


def test_a_damaged_png_of_16_bits_is_refused(tmp_path):
    path = write_png(tmp_path / "a.png", COLOURS, RGB)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png: cannot be decoded"):
        read_pixels(path)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("shape", [(3, 7), (301, 11, 3)])
def test_a_range_leaves_out_the_ends_of_any_type(monkeypatch, kind, shape):
    monkeypatch.setattr("ms_vireid.data.deep._STRIP", 50)  # many strips
    values = (np.random.default_rng(0).normal(60, 12, shape)).astype(kind)
    ordered = np.sort(values, axis=None)
    cut = int(TAIL * (len(ordered) - 1))
    assert Deep(values.copy(), None).range() == (ordered[cut], ordered[-1 - cut])
    np.testing.assert_array_equal(Deep(values, None).shown((20, 99.5)), levels(values, 20, 99.5))
    assert levels_of(levels(values, 20, 99.5)) == len(np.unique(levels(values, 20, 99.5)))


def test_an_open_picture_in_memory_that_pillow_would_cut_is_refused(tmp_path):
    white = write_tiff(tmp_path / "white.tif", ([COUNTS.tobytes()], tags_of(WIDTH, HEIGHT, 16, photometric=0)))
    wide = write_tiff(tmp_path / "wide.tif", ([COUNTS.astype("<u4").tobytes()], tags_of(WIDTH, HEIGHT, 32)))
    for path in (write_png(tmp_path / "rgb.png", COLOURS, RGB), white, wide):
        with Image.open(path) as image, pytest.raises(OSError, match="give its path instead"):
            pixels_of(image, True, (0, 65535))
    with Image.open(write_png(tmp_path / "gray.png", COUNTS, GRAY)) as image:
        np.testing.assert_array_equal(pixels_of(image, True, (LOW, HIGH)), levels(COUNTS, LOW, HIGH))
