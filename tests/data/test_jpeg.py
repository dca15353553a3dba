"""JPEG files: which flaws cost pixels and are refused with libjpeg's words, and which do not."""

import io
import re

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from ms_vireid.command.errors import InputError
from ms_vireid.data.pictures import read_pixels

EOI, SOS = b"\xff\xd9", b"\xff\xda"


def drawn(mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((64, 128), Image.Resampling.BICUBIC).convert(mode)


def encoded(picture, **options):
    content = io.BytesIO()
    picture.save(content, "JPEG", **options)
    return content.getvalue()


def read(tmp_path, content, gray=False):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    return read_pixels(path, gray)


def refusal(tmp_path, content):
    with pytest.raises(InputError) as refused:
        read(tmp_path, content)
    return re.fullmatch(r".*a\.jpg: cannot be decoded as a picture \((.*)\); replace or remove it", str(refused.value))[
        1
    ]


def scan(content):
    """Where a picture's entropy-coded data begin."""
    at = content.index(SOS)
    return at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")


WHOLE = [("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"restart_marker_blocks": 4})]


@pytest.mark.parametrize(("mode", "options"), WHOLE)
def test_data_that_are_lost_in_the_middle_are_reported(tmp_path, mode, options):
    content = encoded(drawn(mode), **options)
    middle = (scan(content) + len(content)) // 2
    closed = content[:middle] + EOI  # never written to the end, and closed properly
    assert refusal(tmp_path, closed).startswith(("Corrupt JPEG data: premature end", "Corrupt JPEG data: found marker"))
    zeros = bytes(len(content) - middle - 2)
    assert refusal(tmp_path, content[:middle] + zeros + EOI).startswith("Corrupt JPEG data: ")
    assert refusal(tmp_path, content[:middle])  # cut off: Pillow's words or libjpeg's


def test_what_libjpeg_reports_is_refused_wherever_it_lies(tmp_path):
    """Random damage: a picture is refused, or libjpeg found no flaw."""
    content, reported = encoded(drawn()), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        at = int(rng.integers(scan(content), len(content) - 66))
        damaged = content[:at] + rng.integers(0, 255, 64, np.uint8).tobytes() + content[at + 64 :]
        words = None
        try:
            pixels = simplejpeg.decode_jpeg(damaged)
        except ValueError as error:
            words = str(error)
        if words is None:
            np.testing.assert_array_equal(read(tmp_path, damaged), pixels)
        else:
            reported += 1
            assert refusal(tmp_path, damaged) in (words, "broken data stream when reading image file")
    assert reported > 30


@pytest.mark.parametrize(("mode", "options"), WHOLE)
@pytest.mark.parametrize("behind", [b"\0" * 100, b"more", EOI, encoded(drawn(seed=1)), bytes(5) + EOI])
def test_bytes_behind_the_end_are_harmless(tmp_path, mode, options, behind):
    content = encoded(drawn(mode), **options)
    np.testing.assert_array_equal(read(tmp_path, content + behind), read(tmp_path, content))


def harmless():
    content = encoded(drawn())
    header = content.index(b"\xff\xdb")
    app0 = content.index(b"JFIF") + 5
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x09"
    no_jfif = content[:2] + adobe + content[4 + int.from_bytes(content[4:6], "big") :]
    return {
        "padding": content[:-2] + bytes(5) + EOI,
        "63 bytes of padding": content[:-2] + bytes(63) + EOI,
        "stray bytes in the header": content[:header] + b"\1\2\3" + content[header:],
        "stray bytes and padding": content[:header] + b"\1\2\3" + content[header:-2] + bytes(7) + EOI,
        "JFIF of version 3": content[:app0] + b"\3" + content[app0 + 1 :],
        "another Adobe transform": no_jfif,
        "fill bytes": content[:header] + b"\xff\xff\xff" + content[header:],
    }


@pytest.mark.parametrize("name", harmless())
def test_flaws_that_cost_no_pixel_are_harmless(tmp_path, name):
    content = harmless()[name]
    np.testing.assert_array_equal(read(tmp_path, content), read(tmp_path, encoded(drawn())))
    middle = (scan(content) + len(content)) // 2
    assert refusal(tmp_path, content[:middle] + EOI)  # and hide no other


def test_bytes_before_the_end_that_are_no_padding_are_lost_data(tmp_path):
    content = encoded(drawn())
    for extraneous in (bytes(range(1, 9)), bytes(64) + b"\1", bytes(500)):
        words = refusal(tmp_path, content[:-2] + extraneous + EOI)
        assert re.fullmatch(r"Corrupt JPEG data: \d+ extraneous bytes before marker 0xd9", words)


def test_a_progressive_picture_without_its_last_scans_is_reported(tmp_path):
    content = encoded(drawn(), progressive=True)
    scans = [at.start() for at in re.finditer(SOS, content)]
    assert len(scans) > 5
    for at in scans[1:]:
        tables = content.rfind(b"\xff\xc4", 0, at)  # before the scan
        closed = content[: tables if tables > scans[scans.index(at) - 1] else at] + EOI
        simplejpeg.decode_jpeg(closed)  # without a word
        assert refusal(tmp_path, closed) == "Its last scans are missing"


def test_colours_in_scans_of_their_own_must_all_be_there(tmp_path):
    """Three gray pictures as the channels of one, which keeps their tables."""
    planes = [encoded(drawn("L", seed)) for seed in range(3)]
    first = planes[0]
    frame = first.index(b"\xff\xc0")
    channels = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    colours = first[: frame + 2] + b"\0\x11" + first[frame + 4 : frame + 9] + b"\3" + channels
    after = first[frame + 13 : first.index(SOS)]
    scans = [
        SOS + b"\0\x08\1" + bytes([n, 0]) + bytes([0, 63, 0]) + one[scan(one) : -2] for n, one in enumerate(planes, 1)
    ]
    whole = colours + after + b"".join(scans) + EOI
    with Image.open(io.BytesIO(whole)) as image:
        np.testing.assert_array_equal(read(tmp_path, whole), image.convert("RGB"))
    for count in (1, 2):
        closed = colours + after + b"".join(scans[:count]) + EOI
        assert refusal(tmp_path, closed)


def test_another_kind_of_jpeg_is_refused_as_one(tmp_path):
    content = encoded(drawn())
    frame = content.index(b"\xff\xc0")
    twelve = content[: frame + 4] + b"\x0c" + content[frame + 5 :]
    assert refusal(tmp_path, twelve) == "its header is damaged, or it is an unsupported kind of JPEG"
