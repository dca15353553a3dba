"""Pictures that are not shown as they are stored: those of 16 or 32 bits, and those with transparent pixels."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ms_vireid.command.errors import InputError, summary
from ms_vireid.command.progress import progress
from ms_vireid.data.pictures import is_deep, open_picture, read_pixels

TAIL = 0.005  # of a picture's pixels, and of all pictures: what lies beyond is dead, hot or odd
FEW = 16  # gray levels


class Kinds(NamedTuple):
    """Pictures of 16 or 32 bits, and of 8 bits with an alpha channel."""

    deep: tuple[Path, ...] = ()
    transparent: tuple[Path, ...] = ()

    def __add__(self, other: "Kinds") -> "Kinds":
        return Kinds(self.deep + other.deep, self.transparent + other.transparent)


def look_at(paths: Sequence[Path]) -> tuple[dict[Path, str], Kinds]:
    """Read the headers of pictures: returns why some cannot be opened, and the others' kinds."""
    with ThreadPoolExecutor() as pool:
        found = dict(zip(paths, pool.map(_look, paths), strict=True))
    problems = {path: problem for path, (problem, _) in found.items() if problem}
    return problems, Kinds(*(tuple(p for p, (_, one) in found.items() if one == kind) for kind in Kinds._fields))


def _look(path: Path) -> tuple[str | None, str | None]:
    if not path.exists():
        return f"{path} does not exist", None
    if path.is_file() and path.stat().st_size == 0:
        return f"{path} is empty", None
    try:
        with open_picture(path) as image:
            kind = "deep" if is_deep(image) else "transparent" if image.has_transparency_data else None
            return None, kind
    except InputError:
        return f"{path} cannot be read", None


def measure_range(paths: Sequence[Path]) -> tuple[float, float] | None:
    """Measure the range of values of pictures of 16 or 32 bits, in float32; None if none can be read.

    The range of a picture leaves out `TAIL` of its pixels at either end, the range of all pictures likewise `TAIL` of
    theirs. It depends on no order and no chance.
    """
    with ThreadPoolExecutor() as pool:
        ranges = list(filter(None, progress(pool.map(_range, paths), len(paths), "measuring", " pictures")))
    if not ranges:
        return None
    lows, highs = np.array(ranges).T
    low, high = np.float32(_within(lows)[0]), np.float32(_within(highs)[1])
    return float(low), float(max(high, np.nextafter(low, np.float32(np.inf))))


def _range(path: Path) -> tuple[float, float] | None:
    try:
        with open_picture(path) as image:
            values = np.asarray(image)
    except InputError:
        return None  # decoding it says why
    values = values[np.isfinite(values)]
    return _within(values) if len(values) else None


def _within(values: np.ndarray) -> tuple[float, float]:
    return np.quantile(values, TAIL, method="lower"), np.quantile(values, 1 - TAIL, method="higher")


def notes_on(kinds: Kinds, value_range: tuple[float, float] | None, root: Path) -> list[str]:
    """Say, one line each, how the pictures are shown and which of them have few gray levels then."""
    notes = []
    if kinds.transparent:
        names = summary([os.path.relpath(path, root) for path in kinds.transparent])
        notes.append(f"pictures with an alpha channel, whose transparent pixels are shown over gray: {names}")
    if kinds.deep:
        shown = "0 to 65535" if value_range is None else f"{value_range[0]:.10g} to {value_range[1]:.10g}"
        with ThreadPoolExecutor() as pool:
            counted = pool.map(partial(_gray_levels, value_range=value_range), kinds.deep)
            levels = list(progress(counted, len(kinds.deep), "gray levels", " pictures"))
        few = [
            f"{os.path.relpath(p, root)}: {n}"
            for p, n in zip(kinds.deep, levels, strict=True)
            if n is not None and n < FEW
        ]
        notes.append(f"{len(kinds.deep)} pictures of 16 or 32 bits: {shown} are shown as black to white")
        if few:
            remedy = "data.sixteen_bit=measured or [low, high] in training"
            notes.append(f"pictures of fewer than {FEW} gray levels of 256 then: {summary(few)}; {remedy}")
    return notes


def _gray_levels(path: Path, value_range: tuple[float, float] | None) -> int | None:
    try:
        return len(np.unique(read_pixels(path, True, value_range)))
    except InputError:
        return None  # decoding it says why
