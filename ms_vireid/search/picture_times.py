"""When pictures were taken.

The first of these that is there counts: a time in the picture's name (20261120_063000, 2026-11-20 06.30.00 and the
like), its EXIF (DateTimeOriginal, else DateTime), the file's time of modification. Times without a zone are in this
computer's zone.
"""

import re
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.progress import progress
from ms_vireid.data.pictures import open_picture

SOURCES = ("name", "EXIF", "modification", "unknown")
_IN_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)(?:[-_T. ]|%20)?(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)(?!\d)"
)
_EXIF_IFD, _DATE_TIME_ORIGINAL, _DATE_TIME = 0x8769, 0x9003, 0x0132


def parse_time(text: str) -> float:
    """An ISO time, with or without the time of day and the zone, in seconds since 1970.

    Raises:
        InputError: it is none.
    """
    try:
        return datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else "")).timestamp()
    except (ValueError, OverflowError, OSError):
        raise InputError(f"--since {text}: not an ISO time; write 2026-11-20 or 2026-11-20T06:30") from None


def picture_times(files: list[Path]) -> tuple[np.ndarray, Counter]:
    """Whole seconds since 1970, float64 [N], nan where it is unknown, and how many each of SOURCES gave."""
    found = [picture_time(file) for file in progress(files, len(files), "times", " pictures")]
    return np.array([time for time, _ in found], np.float64), Counter(source for _, source in found)


def picture_time(file: Path) -> tuple[float, str]:
    """Whole seconds since 1970, or nan, and which of SOURCES says so."""
    for match in _IN_NAME.finditer(file.name):
        with suppress(ValueError):  # digits that are not a time
            return datetime(*map(int, match.groups())).timestamp(), "name"
    try:
        modified = float(int(file.stat().st_mtime))
    except OSError:
        return float("nan"), "unknown"
    taken = _exif_time(file)
    return (modified, "modification") if taken is None else (taken, "EXIF")


def _exif_time(file: Path) -> float | None:
    try:
        with open_picture(file) as picture:
            exif = picture.getexif()
            said = exif.get_ifd(_EXIF_IFD).get(_DATE_TIME_ORIGINAL) or exif.get(_DATE_TIME)
            return datetime.strptime(str(said).strip("\0 "), "%Y:%m:%d %H:%M:%S").timestamp()
    except InputError:  # no picture, no such field, no time
        return None
