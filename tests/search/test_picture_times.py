"""When a picture was taken: its name, its EXIF, its file, in that order."""

import os
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image

from ms_vireid.command.errors import InputError
from ms_vireid.search.picture_times import parse_time, picture_time, picture_times

from ..data.tree import write_picture

NOON = datetime(2026, 11, 20, 12, 0, 5).timestamp()


def with_exif(path, **tags):
    image = Image.new("RGB", (8, 8))
    exif = image.getexif()
    if "original" in tags:
        exif.get_ifd(0x8769)[0x9003] = tags["original"]
    if "changed" in tags:
        exif[0x0132] = tags["changed"]
    image.save(path, exif=exif)
    os.utime(path, (1e9, 1e9 + 0.75))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "20261120_120005.jpg",
        "cam3_2026-11-20_12-00-05_0042.jpg",
        "2026-11-20T12.00.05.png",
        "IMG20261120120005.jpg",
        "id0001 2026.11.20 12:00:05.bmp",
        "99999999_999999_20261120-120005.jpg",
    ],
)
def test_the_name_comes_first_and_needs_no_file(tmp_path, name):
    assert picture_time(tmp_path / name) == (NOON, "name")


@pytest.mark.parametrize("name", ["0001.jpg", "0351_c06_s200656_f4830_vis.jpg", "20261320_120005.jpg", "20261120.jpg"])
def test_other_digits_are_no_time(tmp_path, name):
    time, source = picture_time(tmp_path / name)
    assert np.isnan(time)
    assert source == "unknown"


def test_exif_comes_before_the_time_of_modification(tmp_path):
    original = with_exif(tmp_path / "a.jpg", original="2026:11:20 12:00:05", changed="2020:01:01 00:00:00")
    changed = with_exif(tmp_path / "b.jpg", changed="2026:11:20 12:00:05")
    nonsense = with_exif(tmp_path / "c.jpg", original="0000:00:00 00:00:00")
    without = write_picture(tmp_path / "d.png")
    os.utime(without, (1e9, 1e9))
    (tmp_path / "e.jpg").write_bytes(b"")
    os.utime(tmp_path / "e.jpg", (1e9, 1e9))
    assert picture_time(original) == (NOON, "EXIF")
    assert picture_time(changed) == (NOON, "EXIF")
    assert picture_time(nonsense) == (1e9, "modification")
    times, sources = picture_times([original, without, tmp_path / "e.jpg", tmp_path / "nowhere.jpg"])
    assert times[:3].tolist() == [NOON, 1e9, 1e9]
    assert np.isnan(times[3])
    assert sources == {"EXIF": 1, "modification": 2, "unknown": 1}


def test_iso_times_are_of_this_zone_unless_they_name_one():
    assert parse_time("2026-11-20") == datetime(2026, 11, 20).timestamp()
    assert parse_time("2026-11-20T12:00:05") == NOON
    utc = datetime(2026, 11, 20, 12, tzinfo=timezone.utc).timestamp()
    assert parse_time("2026-11-20T12:00Z") == parse_time("2026-11-20T14:00+02:00") == utc
    for text in ("yesterday", "2026-13-01", "12:00", ""):
        with pytest.raises(InputError, match="not an ISO time"):
            parse_time(text)
