"""Pictures that are not shown as they are stored: those of 16 or 32 bits, and those with transparent pixels."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from ms_vireid.command.errors import InputError, refuse, summary
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.progress import progress
from ms_vireid.config.schema import Range, ValueRanges
from ms_vireid.data.deep import TAIL, levels_of
from ms_vireid.data.pictures import BrokenPictureError, open_picture
from ms_vireid.data.records import ImageSet

FEW = 16  # gray levels
NARROW = 0.5  # of the range of a modality: a camera that fills less of it has too few levels left
_LARGE = 1 << 24  # pixels: a picture of more is decoded alone
_alone = Lock()


class DeepPicture(NamedTuple):
    """A picture of 16 or 32 bits."""

    path: Path
    infrared: bool
    camera: int

    @property
    def modality(self) -> str:
        return MODALITIES[self.infrared]


class Kinds(NamedTuple):
    """Pictures of 16 or 32 bits, and of 8 bits with an alpha channel."""

    deep: tuple[DeepPicture, ...] = ()
    transparent: tuple[Path, ...] = ()

    def __add__(self, other: "Kinds") -> "Kinds":
        return Kinds(self.deep + other.deep, self.transparent + other.transparent)


class Problem(NamedTuple):
    """Why a picture cannot be opened, after its name, and what to do."""

    text: str
    remedy: str = "replace or remove them"


def look_at(images: ImageSet) -> tuple[dict[Path, Problem], Kinds]:
    """Read the headers of pictures, each once: returns why some cannot be opened, and the others' kinds."""
    first: dict[Path, DeepPicture] = {}
    for path, infrared, camera in zip(images.paths, images.infrared, images.cameras, strict=True):
        first.setdefault(path, DeepPicture(path, bool(infrared), int(camera)))
    with ThreadPoolExecutor() as pool:
        looks = dict(zip(first, pool.map(_look, first), strict=True))
    problems = {path: problem for path, (problem, _) in looks.items() if problem}
    deep = tuple(first[path] for path, (_, kind) in looks.items() if kind == "deep")
    return problems, Kinds(deep, tuple(path for path, (_, kind) in looks.items() if kind == "transparent"))


def refuse_unreadable(problems: Mapping[Path, Problem], instead: str = "") -> None:
    """Raise one InputError for all pictures that cannot be opened. instead: what else to do."""
    remedies = dict.fromkeys(problem.remedy for problem in problems.values())
    names = (f"{path} {problem.text}" for path, problem in problems.items())
    refuse(names, "unreadable pictures", ", or ".join(remedies) + instead)


def _look(path: Path) -> tuple[Problem | None, str | None]:
    if path.is_file() and path.stat().st_size == 0:
        return Problem("is empty"), None
    try:
        with open_picture(path) as opened:
            if opened.deep:
                return None, "deep"
            return None, "transparent" if opened.image.has_transparency_data else None
    except BrokenPictureError as error:
        if error.damaged and not path.exists():
            return Problem("does not exist"), None
        return Problem("cannot be read") if error.damaged else Problem(error.reason, error.remedy), None


def measure_ranges(pictures: Sequence[DeepPicture]) -> dict[str, Range]:
    """Measure the ranges of values of pictures of 16 or 32 bits, in float32, by modality; also by camera where one
    fills less than `NARROW` of its modality's, under names such as "infrared/3".

    The range of a picture leaves out `TAIL` of its pixels at either end, the range of all pictures likewise `TAIL` of
    theirs. It depends neither on an order nor on chance. Pictures that cannot be read are left out.
    """
    with ThreadPoolExecutor() as pool:
        measured = progress(pool.map(_range, pictures), len(pictures), "measuring", " pictures")
        rows = [(one, ends) for one, ends in zip(pictures, measured, strict=True) if ends]
    ranges = {}
    for infrared in sorted({one.infrared for one, _ in rows}):
        of_modality = [(one.camera, ends) for one, ends in rows if one.infrared == infrared]
        name = MODALITIES[infrared]
        low, high = ranges[name] = _joined([ends for _, ends in of_modality])
        cameras = sorted({camera for camera, _ in of_modality})
        each = {camera: _joined([ends for one, ends in of_modality if one == camera]) for camera in cameras}
        if any(top - bottom < NARROW * (high - low) for bottom, top in each.values()):
            ranges |= {f"{name}/{camera}": ends for camera, ends in each.items() if camera >= 0}
    return ranges


def _joined(ranges: Sequence[Range]) -> Range:
    lows, highs = np.array(ranges).T
    low = np.float32(np.quantile(lows, TAIL, method="lower"))
    high = np.float32(np.quantile(highs, 1 - TAIL, method="higher"))
    return float(low), float(max(high, np.nextafter(low, np.float32(np.inf))))


def _range(picture: DeepPicture) -> Range | None:
    try:
        with open_picture(picture.path) as opened, _turn(opened.size):
            return opened.deep().range()
    except InputError:
        return None  # decoding it says why


def notes_on(kinds: Kinds, ranges: ValueRanges, root: Path) -> list[str]:
    """Say, in one line each, how the pictures are shown, and which of them by a guess or with few gray levels."""
    notes = []
    if kinds.transparent:
        names = summary([os.path.relpath(path, root) for path in kinds.transparent])
        notes.append(f"pictures with an alpha channel, whose transparent pixels are shown over gray: {names}")
    if not kinds.deep:
        return notes
    by_range: dict[str, list[DeepPicture]] = {}
    for one in kinds.deep:
        by_range.setdefault(_shown_range(one, ranges), []).append(one)
    shown = ", ".join(f"{_whose(ones, ranges)}{values}" for values, ones in by_range.items())
    notes.append(f"{len(kinds.deep)} pictures of 16 or 32 bits: {shown} are shown as black to white")
    notes += _guesses(kinds.deep, ranges)
    with ThreadPoolExecutor() as pool:
        counted = pool.map(lambda one: _gray_levels(one, ranges), kinds.deep)
        levels = list(progress(counted, len(kinds.deep), "gray levels", " pictures"))
    few = {one: n for one, n in zip(kinds.deep, levels, strict=True) if n is not None and n < FEW}
    if few:
        names = summary([f"{os.path.relpath(one.path, root)}: {n}" for one, n in few.items()])
        notes.append(f"pictures of fewer than {FEW} gray levels of 256 then: {names}; {_remedy(few)}")
    return notes


def _shown_range(picture: DeepPicture, ranges: ValueRanges) -> str:
    value_range = ranges.of(picture.infrared, picture.camera)
    return "0 to 65535" if value_range is None else f"{value_range[0]:.10g} to {value_range[1]:.10g}"


def _whose(pictures: Sequence[DeepPicture], ranges: ValueRanges) -> str:
    """Name what a range belongs to, if there are several."""
    if not isinstance(ranges.ranges, dict):
        return ""
    names = {one.modality if f"{one.modality}/{one.camera}" not in ranges.ranges else
             f"{one.modality} camera {one.camera}" for one in pictures}  # fmt: skip
    return " and ".join(sorted(names)) + " "


def _guesses(pictures: Sequence[DeepPicture], ranges: ValueRanges) -> list[str]:
    """Say of which pictures nothing was measured or configured."""
    if not isinstance(ranges.ranges, dict):
        return []
    notes = []
    for infrared, modality in enumerate(MODALITIES):
        ones = [one for one in pictures if one.infrared == infrared]
        cameras = sorted(name for name in ranges.ranges if name.startswith(f"{modality}/"))
        if modality not in ranges.ranges:
            unknown = [one for one in ones if f"{modality}/{one.camera}" not in ranges.ranges]
            taken = "no range of theirs is known, so 16 bits are shown in full"
        else:
            unknown = [one for one in ones if cameras and f"{modality}/{one.camera}" not in ranges.ranges]
            taken = f"of cameras other than {', '.join(cameras)}, so the range of all of these is taken"
        if unknown:
            remedy = _remedy(unknown)
            notes.append(f"{len(unknown)} {modality} pictures of 16 or 32 bits: {taken}; {remedy}")
    return notes


def _remedy(pictures: Iterable[DeepPicture]) -> str:
    if not (ranges := measure_ranges(list(pictures))):
        return "store them in 8 bits"
    values = ", ".join(f"{name}: [{low:.10g}, {high:.10g}]" for name, (low, high) in ranges.items())
    return f"train with data.sixteen_bit='{{{values}}}', which they fill, or store them in 8 bits"


def _turn(size: tuple[int, int]) -> AbstractContextManager:
    """Wait for other large pictures: each takes up to a gigabyte."""
    return _alone if size[0] * size[1] > _LARGE else nullcontext()


def _gray_levels(picture: DeepPicture, ranges: ValueRanges) -> int | None:
    try:
        with open_picture(picture.path) as opened, _turn(opened.size):
            return levels_of(opened.deep().shown(ranges.of(picture.infrared, picture.camera)))
    except InputError:
        return None  # decoding it says why
