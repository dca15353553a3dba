"""Checks of folders, lists and pictures. An error is one line with the number of problems and the first ten."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, refuse, summary
from ms_vireid.command.progress import progress
from ms_vireid.config import Config, DataConfig
from ms_vireid.config.schema import Range
from ms_vireid.data.kinds import Kinds, look_at, measure_range, notes_on
from ms_vireid.data.pictures import is_picture, read_pixels
from ms_vireid.data.processes import in_processes
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.files.checks import read_text

_MAX_BYTES = 1 << 28  # of a list
_CHUNK = 64  # pictures that a process decodes at a time


def require_directory(path: Path, remedy: str, *below: str) -> None:
    """Raise InputError unless the folder exists, and those `below` it."""
    for folder in (path, *(path / name for name in below)):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; {remedy}")


def list_pictures(directory: Path, skipped: list[Path]) -> list[Path]:
    """List the pictures directly in a folder, sorted by name; other files are added to `skipped`."""
    with os.scandir(directory) as entries:
        names = sorted(e.name for e in entries if not e.is_dir() and is_picture(e.name, skipped, directory))
    refuse_names(names, directory)
    return [directory / name for name in names]


def refuse_names(names: Iterable[str], root: Path) -> None:
    """Raise InputError for names that cannot be printed: control characters, or not UTF-8."""
    refuse((repr(name) for name in names if not name.isprintable()), f"{root}: names that cannot be printed", "rename")


def read_lines(listing: Path, remedy: str) -> list[str]:
    """Read the lines of a text file, with any line ending; raises InputError if it cannot be read."""
    try:
        lines = read_text(listing, f"list; {remedy}", _MAX_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{listing}: cannot be read ({error}); {remedy}") from None
    return [line.removeprefix("\ufeff") for line in lines]  # also where files with byte-order marks were joined


def listed_files(
    listing: Path, root: Path, names: Sequence[tuple[int, str]], remedy: str, also_gone: bool = False
) -> list[Path]:
    """Return the paths, relative to `root`, that a list names with slashes or backslashes.

    names: with their lines' numbers. also_gone: they may name missing files. Raises InputError, with the lines'
    numbers, for names that cannot be printed or name no file.
    """
    unprintable = (f"line {number} {name!r}" for number, name in names if not name.isprintable())
    refuse(unprintable, f"{listing}: names that cannot be printed", "rename")
    paths, missing = [], []
    for number, name in names:
        spellings = dict.fromkeys((name, name.replace("\\", "/")))
        found = next((spelling for spelling in spellings if (root / spelling).is_file()), None)
        if found is None:
            missing.append(f"line {number} '{name}'")
        paths.append(Path(found or name.replace("\\", "/")))
    refuse(() if also_gone else missing, f"{listing}: lines that name no file under {root}", remedy)
    return paths


def validate_for_training(data: ReIDData, config: Config) -> tuple[list[str], Range | None]:
    """Check the identities and all pictures before training; returns notes, one line each, and the range of values of
    16 or 32 bits, configured or measured over the training pictures (None: full)."""
    warning = check_training_identities(data.train, config.train.num_instances, data.root)
    kinds, of_test = check_pictures(data.train), check_pictures(data.test)
    value_range = range_of(config.data, kinds)
    notes = notes_on(kinds + of_test, value_range, data.root)
    return [warning, *notes] if warning else notes, value_range


def range_of(config: DataConfig, kinds: Kinds) -> Range | None:
    """Return the configured range of values, measured over the training pictures if it is to be; None: full."""
    measured = config.sixteen_bit == "measured" and kinds.deep
    return measure_range(kinds.deep) if measured else config.value_range


def check_pictures(images: ImageSet) -> Kinds:
    """Raise InputError unless every picture exists, is not empty and has a valid header; return their kinds."""
    problems, kinds = look_at(list(dict.fromkeys(images.paths)))
    refuse(problems.values(), "unreadable pictures", "replace or remove them")
    return kinds


def undecodable(paths: Iterable[Path], root: Path, value_range: Range | None) -> dict[Path, str]:
    """Decode each picture completely, on all cores; returns those that fail, with the reasons."""
    paths = list(dict.fromkeys(paths))
    problems = in_processes(partial(_decoding_problem, value_range=value_range), paths, _CHUNK, str(root))
    shown = progress(problems, len(paths), "decoding", " pictures")
    return {path: problem for path, problem in zip(paths, shown, strict=True) if problem}


def _decoding_problem(path: Path, value_range: Range | None) -> str | None:
    try:
        read_pixels(path, False, value_range)
    except InputError as error:
        return str(error)
    return None


def check_training_identities(train: ImageSet, num_instances: int, root: Path) -> str | None:
    """Raise InputError unless there are training identities and each has pictures of both modalities. Returns a warning
    if some have fewer than `num_instances` of one (a batch repeats them), else None."""
    if not len(train):
        raise InputError(f"{root}: the training set holds no pictures; check the folder and its lists of identities")
    few = []
    for modality, people in pictures_of_each(train).items():
        missing = (name for name, count in people if not count)
        refuse(
            missing, f"{root}: training identities without {modality} pictures", "add some or drop them from the list"
        )
        few += [f"{name} has {count} {modality}" for name, count in people if count < num_instances]
    warning = f"identities with fewer than {num_instances} pictures of a modality repeat them: {summary(few)}"
    return warning if few else None


def pictures_of_each(images: ImageSet) -> dict[str, list[tuple[str, int]]]:
    """Return, by modality, the name of each identity and the number of its pictures."""
    names, masks = images.names.values(), {"visible": ~images.infrared, "infrared": images.infrared}
    counts = {name: np.bincount(images.labels[mask], minlength=len(names)) for name, mask in masks.items()}
    return {name: list(zip(names, each.tolist(), strict=True)) for name, each in counts.items()}
