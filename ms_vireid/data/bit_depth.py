"""Pictures that are not shown as they are stored, of 16 or 32 bits or with transparent pixels, and infrared ones in
false colours."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ms_vireid.command.errors import InputError, refuse, summary
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.printing import progress
from ms_vireid.config.schema import WIDEST, Range, ValueRanges
from ms_vireid.data.pictures import BrokenPictureError, open_picture, read_pixels
from ms_vireid.data.pixel_formats import is_high_bit_depth, is_one_of, to_8_bits, values_of
from ms_vireid.data.records import ImageSet

TAIL = 0.005  # of a picture's pixels at either end: what lies beyond is dead, hot or odd
FEW = 16  # gray levels
NARROW = 0.5  # of the range of a modality: a camera that fills less of it has too few levels left
FAR = 4  # times the range of a picture's other values: so far outside them
APART = 1 / 8  # of the range of all pictures: two groups of them that leave so much between may have two units
# Gray people as JPEG and WebP of any quality, with noise of 6 levels in each channel, or tinted by a tenth: no pixel is
# beyond; in 17 palettes of false colours at JPEG's quality 20 it is 17 to 100 %, in Matplotlib's bluish `bone` none.
_CHROMA, _COLOURED = 32, 0.01
_LOOKED_AT = 1 << 11  # pixels of a picture: 0.03 ms
SAMPLE = 64  # pictures that are decoded to find colours, where not all are
_SORTED = 1 << 14  # pixels of a picture, to find values far outside
_GRAY = "save them in gray (white hot) in the camera's program; photographs are visible pictures"
_RADIOMETRIC = "flyr reads their temperatures: imwrite('OUT.tif', flyr.unpack('IN').celsius.astype('float32'))"
_ONE_UNIT = "if they are in two units, convert one, by tifffile: imwrite('OUT.tif', imread('IN.tif') - 273.15)"


class HighBitDepth(NamedTuple):
    """A picture of 16 or 32 bits."""

    path: Path
    infrared: bool
    camera: int

    @property
    def modality(self) -> str:
        return MODALITIES[self.infrared]


class Formats(NamedTuple):
    """Pictures of 16 or 32 bits, those with an alpha channel, infrared ones with channels for colours, FLIR's JPEGs
    with the measured values behind their colours, and pictures of float32."""

    high_bit_depth: tuple[HighBitDepth, ...] = ()
    transparent: tuple[Path, ...] = ()
    channels: tuple[Path, ...] = ()
    radiometric: tuple[Path, ...] = ()
    floats: tuple[Path, ...] = ()

    def __add__(self, other: "Formats") -> "Formats":
        return Formats(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


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
        looks = dict(zip(first, pool.map(_look, first.values()), strict=True))
    problems = {path: found for path, found in looks.items() if isinstance(found, Problem)}
    kinds = {kind: tuple(path for path, found in looks.items() if kind in found) for kind in Formats._fields}
    return problems, Formats(**kinds | {"high_bit_depth": tuple(first[path] for path in kinds["high_bit_depth"])})


def refuse_unreadable(problems: Mapping[Path, Problem], instead: str = "") -> None:
    """Raise one InputError for all pictures that cannot be opened. instead: what else to do."""
    remedies = dict.fromkeys(problem.remedy for problem in problems.values())
    names = (f"{path} {problem.text}" for path, problem in problems.items())
    refuse(names, "unreadable pictures", ", or ".join(remedies) + instead)


def _look(picture: HighBitDepth) -> Problem | set[str]:
    """Return why a picture cannot be opened, or the fields of `Formats` that it belongs to."""
    path = picture.path
    if path.is_file() and path.stat().st_size == 0:
        return Problem("is empty")
    try:
        with open_picture(path) as image:
            if is_high_bit_depth(image):
                return {"high_bit_depth", "floats"} if image.mode == "F" else {"high_bit_depth"}
            found = {"transparent"} if image.has_transparency_data else set()
            if picture.infrared and Image.getmodebase(image.mode) != "L":
                found.add("channels")
                if any(data.startswith(b"FLIR\0") for _, data in getattr(image, "applist", ())):
                    found.add("radiometric")
            return found
    except BrokenPictureError as error:
        if error.damaged:
            return Problem("cannot be read" if path.exists() else "does not exist")
        return Problem(error.reason, error.remedy)


def measure_ranges(pictures: Sequence[HighBitDepth], no_values: Sequence[float] = ()) -> dict[str, Range]:
    """Measure the ranges of values of pictures of 16 or 32 bits, in float32, by modality; also by camera where one
    fills less than `NARROW` of its modality's, under names such as "infrared/3".

    The range of a picture leaves out `TAIL` of its pixels at either end, the range of all pictures likewise `TAIL` of
    theirs. It depends neither on an order nor on chance. Pictures that cannot be read are left out, and so are
    `no_values`, and values that no range may have.
    """
    measured = _of_each(lambda picture: _range(picture, no_values), pictures, "measuring")
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


def require_ranges(formats: Formats, ranges: ValueRanges) -> None:
    """Raise InputError for pictures of float32 whose range is not known: they cannot be shown."""
    floats = set(formats.floats)
    deep = [(one, ranges.of(one.infrared, one.camera)) for one in formats.high_bit_depth if one.path in floats]
    if unknown := [one for one, shown in deep if shown is None or shown[0] is None]:
        measured = measure_ranges(unknown, ranges.no_values)
        stated = f"train with {_stated((ranges.ranges or {}) | measured)}"
        remedy = stated if measured else f"replace them: no value is within ±{WIDEST:,}"
        refuse((str(one.path) for one in unknown), "pictures of 32 bits whose range of values is not known", remedy)


def _of_each(function: Callable[[HighBitDepth], Any], pictures: Sequence[HighBitDepth], title: str) -> list:
    with ThreadPoolExecutor() as pool:
        return list(progress(pool.map(function, pictures), len(pictures), title, " pictures"))


def _range(picture: HighBitDepth, no_values: Sequence[float]) -> Range | None:
    try:
        with open_picture(picture.path) as image:
            values = values_of(image)
    except InputError:
        return None  # decoding it says why
    values = values[np.abs(values) < WIDEST]  # so that the next number may end a range
    if no_values:
        values = values[~is_one_of(values, no_values)]
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


def notes_on(formats: Formats, ranges: ValueRanges, root: Path, coloured: Sequence[Path] | None = None) -> list[str]:
    """Say, in one line each, how the pictures are shown, and which of them by a guess, with few gray levels or values
    that are none, or in false colours.

    coloured: all infrared pictures with colours. Without it, `SAMPLE` of those that may have some are decoded.
    """
    notes, pictures = [], formats.high_bit_depth
    if formats.transparent:
        names = summary([os.path.relpath(path, root) for path in formats.transparent])
        notes.append(f"pictures with an alpha channel, whose transparent pixels are shown over gray: {names}")
    notes += _colours(formats, root, coloured)
    if not pictures:
        return notes
    shown: dict[str, set[str]] = {}  # by range, whose it is
    for one in pictures:
        low, high, *_ = ranges.of(one.infrared, one.camera) or (None, None)
        ends = "0 to 65535" if low is None else f"{low:.10g} to {high:.10g}"
        shown.setdefault(ends, set()).add(_whose(one, ranges))
    each = ", ".join(f"{' and '.join(sorted(names))} {values}".lstrip() for values, names in shown.items())
    notes.append(f"{len(pictures)} pictures of 16 or 32 bits: {each} are shown as black to white")
    decoded = _of_each(lambda one: _decode(one, ranges), pictures, "gray levels")
    found = {one: values for one, values in zip(pictures, decoded, strict=True) if values}
    far = {one: values for one, values in found.items() if values.share}
    no_values = (*ranges.no_values, *dict.fromkeys(value for values in far.values() for value in values.far))
    notes += _guesses(pictures, ranges, no_values)
    if far:
        names = summary([f"{os.path.relpath(one.path, root)}: {values.share:.1%}" for one, values in far.items()])
        stated = ", ".join(f"{value:.9g}" for value in no_values)
        remedy = f"data.no_value='[{stated}]'" if len(no_values) > 1 else f"data.no_value={stated}"
        if len(no_values) > 10 or not all(values.far for values in far.values()):
            ends = {name: [values.ends for one, values in far.items() if one.modality == name] for name in MODALITIES}
            remedy = _stated({name: _joined(each) for name, each in ends.items() if each})
        notes.append(f"pictures with values far outside the rest: {names}; if they mean nothing, train with {remedy}")
    units, differing = _two_units(found, ranges, root)
    few = {one: values.levels for one, values in found.items() if values.levels < FEW}
    if ranges.ranges is not None:  # no range shows two units with more levels
        few = {one: levels for one, levels in few.items() if one.modality not in differing}
    if few:
        names = summary([f"{os.path.relpath(one.path, root)}: {count}" for one, count in few.items()])
        notes.append(f"pictures with fewer than {FEW} of 256 gray levels: {names}; {_remedy(list(few), no_values)}")
    return notes + units


def _colours(formats: Formats, root: Path, coloured: Sequence[Path] | None) -> list[str]:
    """Say which infrared pictures have colours, and which of these the values behind them."""
    looked_at = formats.channels
    if coloured is None:
        step = max(1, len(looked_at) / SAMPLE)
        looked_at = [looked_at[int(i * step)] for i in range(min(SAMPLE, len(looked_at)))]
        with ThreadPoolExecutor() as pool:
            coloured = [path for path, found in zip(looked_at, pool.map(_is_coloured, looked_at), strict=True) if found]
    count, radiometric = len(formats.channels), set(formats.radiometric)
    sample = "" if len(looked_at) == count else f" among {len(looked_at)} of {count:,} (check-data looks at all)"
    notes = []
    for kind, remedy in (("radiometric", _RADIOMETRIC), ("infrared", _GRAY)):
        if paths := [path for path in coloured if (path in radiometric) == (kind == "radiometric")]:
            names = summary([os.path.relpath(path, root) for path in paths])
            notes.append(f"{kind} pictures in colours{sample}: {names}; {remedy}")
    return notes


def has_colours(pixels: np.ndarray) -> bool:
    """Return whether the channels of over `_COLOURED` of a picture's pixels, uint8 [H, W] or [H, W, 3], differ by over
    `_CHROMA` levels."""
    if pixels.ndim == 2:
        return False
    step = max(1, math.isqrt(pixels.shape[0] * pixels.shape[1] // _LOOKED_AT))
    red, green, blue = pixels[::step, ::step].transpose(2, 0, 1)
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return bool((chroma > _CHROMA).mean() > _COLOURED)


def _is_coloured(path: Path) -> bool:
    try:
        return has_colours(read_pixels(path, True))
    except InputError:
        return False  # decoding it says why


def _whose(picture: HighBitDepth, ranges: ValueRanges) -> str:
    """Name what the range of a picture belongs to, if there are several."""
    if not isinstance(ranges.ranges, dict):
        return ""
    camera = f" camera {picture.camera}" if f"{picture.modality}/{picture.camera}" in ranges.ranges else ""
    return f"{picture.modality}{camera}"


def _guesses(pictures: Sequence[HighBitDepth], ranges: ValueRanges, no_values: Sequence[float]) -> list[str]:
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
            notes.append(f"{len(unknown)} {modality} pictures of 16 or 32 bits: {taken}; {_remedy(unknown, no_values)}")
    return notes


def _remedy(pictures: Sequence[HighBitDepth], no_values: Sequence[float]) -> str:
    """Say which range shows the pictures in more gray levels, if one does."""
    ranges = measure_ranges(pictures, no_values)
    shown = ValueRanges(ranges, tuple(no_values))
    decoded = _of_each(lambda one: _decode(one, shown), pictures, "gray levels") if ranges else []
    helped = sum(values is not None and values.levels >= FEW for values in decoded)
    if not helped:
        return f"no range of values shows {FEW} of their levels"
    some = f", which helps {helped} of them" if helped < len(pictures) else ", which they fill"
    return f"train with {_stated(ranges)}{some}, or store them in 8 bits"


def _stated(ranges: Mapping[str, Range]) -> str:
    values = ", ".join(f"{name}: [{low:.10g}, {high:.10g}]" for name, (low, high) in ranges.items())
    return f"data.sixteen_bit='{{{values}}}'"


class _Values(NamedTuple):
    """What decoding tells of a picture. levels: of gray. ends: of its values without those far outside, which are
    `share` of all; None if it has none. far: these, where many are equal."""

    levels: int
    ends: Range | None
    far: tuple[float, ...]
    share: float


def _decode(picture: HighBitDepth, ranges: ValueRanges) -> _Values | None:
    try:
        with open_picture(picture.path) as image:
            values = values_of(image)
            levels = to_8_bits(values, ranges.of(picture.infrared, picture.camera))
    except InputError:
        return None  # decoding it says why
    values = values.ravel()[:: values.size // _SORTED | 1]  # odd, for another column in each row
    values = np.sort(values[np.isfinite(values) & ~is_one_of(values, ranges.no_values)]).astype(np.float64)
    cut = int(TAIL * (len(values) - 1))
    values = values[cut : len(values) - cut]
    count = np.count_nonzero(np.bincount(levels.ravel()))
    if not len(values):
        return _Values(count, None, (), 0)
    parts = np.split(values, 1 + np.sort(np.argsort(np.diff(values))[-2:]))  # at the two widest gaps
    main = max(parts, key=np.ptp)
    beyond = FAR * np.ptp(main)
    near = [part for part in parts if not beyond or max(main[0] - part[-1], part[0] - main[-1]) <= beyond]
    equal = tuple(part[0].item() for part in parts if part[0] == part[-1] and not any(part is one for one in near))
    share = 1 - sum(map(len, near)) / len(values)
    return _Values(count, (near[0][0], near[-1][-1]), equal, share)


def _two_units(found: Mapping[HighBitDepth, _Values], ranges: ValueRanges, root: Path) -> tuple[list[str], set[str]]:
    """Say if two groups of pictures with one range share no values and leave much between them; return also the
    modalities of which this is said."""
    groups: dict[tuple[str, str], list[tuple[Range, str]]] = {}
    for one, values in found.items():
        if values.ends:
            row = values.ends, os.path.relpath(one.path, root)
            groups.setdefault((one.modality, _whose(one, ranges)), []).append(row)
    notes, differing = [], set()
    for (modality, _), rows in sorted(groups.items()):
        rows.sort()
        lows, highs = np.array([ends for ends, _ in rows]).T
        highest = np.maximum.accumulate(highs)
        gaps = lows[1:] - highest[:-1]
        if not len(gaps) or gaps.max() <= APART * (highest[-1] - lows[0]):
            continue
        at = 1 + int(gaps.argmax())
        below = f"{at} from {lows[0]:.5g} to {highest[at - 1]:.5g} ({rows[0][1]} ...)"
        above = f"{len(rows) - at} from {lows[at]:.5g} to {highest[-1]:.5g} ({rows[at][1]} ...)"
        notes.append(f"{modality} pictures whose values do not overlap: {below} and {above}; {_ONE_UNIT}")
        differing.add(modality)
    return notes, differing
