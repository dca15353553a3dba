"""Pictures that are not shown as they are stored: those of 16 or 32 bits, and those with transparent pixels."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ms_vireid.command.errors import InputError, refuse, summary
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.printing import progress
from ms_vireid.config.schema import Range, ValueRanges
from ms_vireid.data.pictures import BrokenPictureError, open_picture, read_pixels
from ms_vireid.data.pixel_formats import is_high_bit_depth, values_of
from ms_vireid.data.records import ImageSet

TAIL = 0.005  # of a picture's pixels at either end: what lies beyond is dead, hot or odd
FEW = 16  # gray levels
NARROW = 0.5  # of the range of a modality: a camera that fills less of it has too few levels left


class HighBitDepth(NamedTuple):
    """A picture of 16 or 32 bits."""

    path: Path
    infrared: bool
    camera: int

    @property
    def modality(self) -> str:
        return MODALITIES[self.infrared]


class Formats(NamedTuple):
    """Pictures of 16 or 32 bits, and those with an alpha channel."""

    high_bit_depth: tuple[HighBitDepth, ...] = ()
    transparent: tuple[Path, ...] = ()

    def __add__(self, other: "Formats") -> "Formats":
        return Formats(self.high_bit_depth + other.high_bit_depth, self.transparent + other.transparent)


class Problem(NamedTuple):
    """Why a picture cannot be opened, after its name, and what to do."""

    text: str
    remedy: str = "replace or remove them"


def look_at(images: ImageSet) -> tuple[dict[Path, Problem], Formats]:
    """Read the headers of pictures, each once: returns why some cannot be opened, and the others' formats."""
    first: dict[Path, HighBitDepth] = {}
    for path, infrared, camera in zip(images.paths, images.infrared, images.cameras, strict=True):
        first.setdefault(path, HighBitDepth(path, bool(infrared), int(camera)))
    with ThreadPoolExecutor() as pool:
        looks = dict(zip(first, pool.map(_look, first), strict=True))
    problems = {path: found for path, found in looks.items() if isinstance(found, Problem)}
    high_bit_depth = tuple(first[path] for path, found in looks.items() if found == "high bit depth")
    return problems, Formats(high_bit_depth, tuple(path for path, found in looks.items() if found == "transparent"))


def refuse_unreadable(problems: Mapping[Path, Problem], instead: str = "") -> None:
    """Raise one InputError for all pictures that cannot be opened. instead: what else to do."""
    remedies = dict.fromkeys(problem.remedy for problem in problems.values())
    names = (f"{path} {problem.text}" for path, problem in problems.items())
    refuse(names, "unreadable pictures", ", or ".join(remedies) + instead)


def _look(path: Path) -> Problem | str | None:
    if path.is_file() and path.stat().st_size == 0:
        return Problem("is empty")
    try:
        with open_picture(path) as image:
            if is_high_bit_depth(image):
                return "high bit depth"
            return "transparent" if image.has_transparency_data else None
    except BrokenPictureError as error:
        if error.damaged:
            return Problem("cannot be read" if path.exists() else "does not exist")
        return Problem(error.reason, error.remedy)


def measure_ranges(pictures: Sequence[HighBitDepth]) -> dict[str, Range]:
    """Measure the ranges of values of pictures of 16 or 32 bits, in float32, by modality; also by camera where one
    fills less than `NARROW` of its modality's, under names such as "infrared/3".

    The range of a picture leaves out `TAIL` of its pixels at either end, the range of all pictures likewise `TAIL` of
    theirs. It depends neither on an order nor on chance. Pictures that cannot be read are left out.
    """
    with ThreadPoolExecutor() as pool:
        measured = progress(pool.map(_range, pictures), len(pictures), "measuring", " pictures")
        rows = [(one, ends) for one, ends in zip(pictures, measured, strict=True) if ends]
    ranges = {}
    for modality in MODALITIES:
        of_modality = [(one.camera, ends) for one, ends in rows if one.modality == modality]
        if of_modality:
            low, high = ranges[modality] = _joined([ends for _, ends in of_modality])
            cameras = sorted({camera for camera, _ in of_modality})
            each = {camera: _joined([ends for one, ends in of_modality if one == camera]) for camera in cameras}
            if any(top - bottom < NARROW * (high - low) for bottom, top in each.values()):
                ranges |= {f"{modality}/{camera}": ends for camera, ends in each.items() if camera >= 0}
    return ranges


def _range(picture: HighBitDepth) -> Range | None:
    try:
        with open_picture(picture.path) as image:
            values = values_of(image)
    except InputError:
        return None  # decoding it says why
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    cut = int(TAIL * (len(values) - 1))
    ends = (cut, len(values) - 1 - cut)
    values.partition(ends)
    return tuple(values[at].item() for at in ends)


def _joined(ranges: Sequence[Range]) -> Range:
    lows, highs = np.array(ranges).T
    low = np.float32(np.quantile(lows, TAIL, method="lower"))
    high = np.float32(np.quantile(highs, 1 - TAIL, method="higher"))
    return float(low), float(max(high, np.nextafter(low, np.float32(np.inf))))


def notes_on(formats: Formats, ranges: ValueRanges, root: Path) -> list[str]:
    """Say, in one line each, how the pictures are shown, and which of them by a guess or with few gray levels."""
    notes, pictures = [], formats.high_bit_depth
    if formats.transparent:
        names = summary([os.path.relpath(path, root) for path in formats.transparent])
        notes.append(f"pictures with an alpha channel, whose transparent pixels are shown over gray: {names}")
    if not pictures:
        return notes
    shown: dict[str, set[str]] = {}  # by range, whose it is
    for one in pictures:
        low, high = ranges.of(one.infrared, one.camera) or (0, 65535)
        shown.setdefault(f"{low:.10g} to {high:.10g}", set()).add(_whose(one, ranges))
    each = ", ".join(f"{' and '.join(sorted(names))} {values}".lstrip() for values, names in shown.items())
    notes.append(f"{len(pictures)} pictures of 16 or 32 bits: {each} are shown as black to white")
    notes += _guesses(pictures, ranges)
    with ThreadPoolExecutor() as pool:
        counted = pool.map(lambda one: _gray_levels(one, ranges), pictures)
        levels = list(progress(counted, len(pictures), "gray levels", " pictures"))
    if few := {one: count for one, count in zip(pictures, levels, strict=True) if count and count < FEW}:
        names = summary([f"{os.path.relpath(one.path, root)}: {count}" for one, count in few.items()])
        notes.append(f"pictures with fewer than {FEW} of 256 gray levels: {names}; {_remedy(list(few))}")
    return notes


def _whose(picture: HighBitDepth, ranges: ValueRanges) -> str:
    """Name what the range of a picture belongs to, if there are several."""
    if not isinstance(ranges.ranges, dict):
        return ""
    camera = f" camera {picture.camera}" if f"{picture.modality}/{picture.camera}" in ranges.ranges else ""
    return f"{picture.modality}{camera}"


def _guesses(pictures: Sequence[HighBitDepth], ranges: ValueRanges) -> list[str]:
    """Say of which pictures nothing was measured or configured."""
    notes = []
    for modality in MODALITIES if isinstance(ranges.ranges, dict) else ():
        cameras = sorted(name for name in ranges.ranges if name.startswith(f"{modality}/"))
        if modality not in ranges.ranges:
            taken = "their range is unknown, so 16 bits are shown in full"
        elif cameras:
            taken = f"not of {', '.join(cameras)}, so the range of all of these is taken"
        else:
            continue
        if unknown := [one for one in pictures if one.modality == modality and _whose(one, ranges) == modality]:
            notes.append(f"{len(unknown)} {modality} pictures of 16 or 32 bits: {taken}; {_remedy(unknown)}")
    return notes


def _remedy(pictures: Sequence[HighBitDepth]) -> str:
    """Say which range shows the pictures in more gray levels, if one does."""
    ranges = measure_ranges(pictures)
    helped = [one for one in pictures if ranges and (_gray_levels(one, ValueRanges(ranges)) or 0) >= FEW]
    if not helped:
        return f"no range of values shows {FEW} of their levels"
    values = ", ".join(f"{name}: [{low:.10g}, {high:.10g}]" for name, (low, high) in ranges.items())
    some = f", which helps {len(helped)} of them" if len(helped) < len(pictures) else ", which they fill"
    return f"train with data.sixteen_bit='{{{values}}}'{some}, or store them in 8 bits"


def _gray_levels(picture: HighBitDepth, ranges: ValueRanges) -> int | None:
    try:
        return len(set(read_pixels(picture.path, True, ranges.of(picture.infrared, picture.camera)).tobytes()))
    except InputError:
        return None  # decoding it says why
