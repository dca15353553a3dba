"""Checks of folders, lists and pictures. An error is one line with the number of problems and the first ten."""

import os
import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, printable, refuse, summary
from ms_vireid.command.printing import progress
from ms_vireid.config import Config, DataConfig
from ms_vireid.config.schema import Range, Shown, ValueRanges
from ms_vireid.data.bit_depth import (
    Formats,
    has_colours,
    look_at,
    measure_ranges,
    notes_on,
    refuse_unreadable,
    require_ranges,
)
from ms_vireid.data.digests import copies
from ms_vireid.data.pictures import BrokenPictureError, is_picture, is_systems, note_skipped, read_pixels
from ms_vireid.data.processes import in_processes
from ms_vireid.data.records import ImageSet, ReIDData
from ms_vireid.files.checks import note, read_text

_MAX_BYTES, _MAX_LINES = 1 << 28, 1 << 21  # of a list
_MOST_LINKED = 100_000
_ASIDE = re.compile(
    r"((seg(mentation)?|binary)[ _-]?)?masks?|segs?|segmentations?|silhouettes?|labels?|annotations?|gt|parsing|depths?"
    r"|images?|imgs?|pictures?|frames?|originals?|crops?|copy|copies|backups?|old|resized|previews?|small|large",
    re.IGNORECASE,
)
_CUT = re.compile(r"[ _.(-]+|(?<=\d)(?=[^\W\d_])")  # where a name may be continued
_IS_WORD = re.compile(r"\(|[^\W\d_]")  # more than another number
_CHUNK = 64  # pictures that a process decodes at a time


def require_directory(path: Path, remedy: str, *below: str) -> None:
    """Raise InputError unless the folder exists, and those `below` it."""
    for folder in (path, *(path / name for name in below)):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; {remedy}")


def list_pictures(directory: Path, skipped: list[Path]) -> list[Path]:
    """List the pictures directly in a folder, sorted by name; other files that no system made are added to
    `skipped`."""
    with os.scandir(directory) as entries:
        files = (e.name for e in entries if not (is_systems(e.name) or e.is_dir()))
        names = sorted(name for name in files if is_picture(name, skipped, directory))
    refuse_names(names, directory)
    return [directory / name for name in names]


def walk(root: Path, skipped: list[Path] | None = None) -> list[Path]:
    """List the pictures below a folder, relative to it and sorted. Other files, and what systems make, are added to
    `skipped`; without it they are noted, and so are folders that cannot be read.

    Links are followed, and every name counts; only a link to a folder that leads back to it is skipped. Raises
    InputError if links lead to more than `_MOST_LINKED` folders, each counted as often as it has names.
    """
    pictures, others, unreadable, linked = [], [] if skipped is None else skipped, [], 0
    leading = {str(root): (os.path.realpath(root),)}  # the real folders that lead to each
    for folder, below, names in os.walk(root, onerror=unreadable.append, followlinks=True):
        above, entered = leading.pop(folder), []
        for name in sorted(below):
            path = os.path.join(folder, name)
            if is_systems(name):
                others.append(Path(path))
            elif (real := os.path.realpath(path)) not in above:
                leading[path] = (*above, real)
                linked += real != os.path.join(above[0], os.path.relpath(path, root))
                entered.append(name)
        if linked > _MOST_LINKED:
            problem = f"links lead to more than {_MOST_LINKED:,} folders"
            raise InputError(f"{folder}: {problem}; remove links between folders, or list the pictures")
        below[:] = entered
        here = Path(folder).relative_to(root)
        pictures += [here / name for name in names if is_picture(name, others, Path(folder))]
    if skipped is None:
        note_skipped(others, root)
        if unreadable:
            names = summary([os.path.relpath(error.filename, root) for error in unreadable])
            note(root, f"skipping unreadable folders: {names}")
    return sorted(pictures)


def note_doubles(root: Path, pictures: Sequence[Path], people: Sequence[Hashable]) -> None:
    """Note pictures below `root` whose names double another's of the same person in the same place, such as
    `0.png`, `0_mask.png`, `0 (1).jpg`, `Copy of 0.jpg` and `masks/0.png` beside `0.jpg`.

    people: whatever pictures share that may be doubles.
    """
    places: dict[str, str] = {}  # of each folder, but for folders that say what a picture is and not which
    groups: dict[tuple, dict[str, Path]] = {}
    beside = []
    for path, person in zip(pictures, people, strict=True):
        folder, name = os.path.split(path)
        if folder not in places:
            places[folder] = "/".join(part for part in folder.split("/") if not _ASIDE.fullmatch(part))
        stem = os.path.splitext(name)[0].lower()
        if (first := groups.setdefault((places[folder], person), {}).setdefault(stem, path)) != path:
            beside.append((path, first))
    for stems in groups.values():
        for stem, path in stems.items():
            parts = [(stem[: cut.start()], stem[cut.end() :], stem[cut.start() :]) for cut in _CUT.finditer(stem)]
            shorter = [front for front, _, rest in parts if _IS_WORD.search(rest)]
            shorter += [back for front, back, _ in parts if _IS_WORD.search(front)]
            beside += [(path, stems[one]) for one in shorter if one in stems][:1]
    if beside:
        double = " beside ".join(os.path.relpath(path, root) for path in min(beside))
        what = f"pictures whose names double another's of the same person: {len(beside)}, such as {double}"
        note(root, f"{what}; all are used; move masks and copies away")


def refuse_names(names: Iterable[str], where: Path) -> None:
    """Raise InputError for names that cannot be printed, or are not UTF-8."""
    problems = dict.fromkeys(printable(name) for name in names if not name.isprintable())
    refuse(problems, f"{where}: unprintable names", "rename")


def read_lines(listing: Path, remedy: str) -> list[str]:
    """Read the lines of a text file, with any line ending; raises InputError if it cannot be read."""
    try:
        lines = read_text(listing, f"list; {remedy}", _MAX_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{listing}: cannot be read ({error}); {remedy}") from None
    if len(lines) > _MAX_LINES:
        raise InputError(f"{listing}: has more than {_MAX_LINES:,} lines; {remedy}")
    return [line.removeprefix("\ufeff") for line in lines]  # also where files with byte-order marks were joined


def listed_files(
    listing: Path, root: Path, names: Sequence[tuple[int, str]], remedy: str, also_gone: bool = False
) -> list[Path]:
    """Return the paths, relative to `root`, that a list names with slashes or backslashes.

    names: with their lines' numbers. also_gone: they may name missing files. Raises InputError, with the lines'
    numbers, for names that cannot be printed or name no file.
    """
    refuse_names((f"line {number} {name}" for number, name in names), listing)
    spellings = ({name: None, name.replace("\\", "/"): None} for _, name in names)
    found = [next((name for name in either if os.path.isfile(os.path.join(root, name))), None) for either in spellings]
    gone = [row for row, name in zip(names, found, strict=True) if not (also_gone or name)]
    if not all(name.isascii() for _, name in gone):
        remedy += "; accents must be encoded as on the disk (NFC or NFD)"
    missing = (f"line {number} '{name}'" for number, name in gone)
    refuse(missing, f"{listing}: lines that name no file under {root}", remedy)
    return [Path(name or stated.replace("\\", "/")) for (_, stated), name in zip(names, found, strict=True)]


def validate_for_training(data: ReIDData, config: Config) -> tuple[list[str], dict[str, Range]]:
    """Check the identities and all pictures before training; returns notes, one line each, and the ranges of values of
    16 or 32 bits that were measured over the training pictures."""
    warning = check_training_identities(data.train, config.train.num_instances, data.root)
    formats, of_test = check_pictures(data.train), check_pictures(data.test)
    measured = measured_ranges(config.data, formats)
    ranges = config.with_value_ranges(measured).data.value_ranges
    require_ranges(formats + of_test, ranges)
    notes = notes_on(formats + of_test, ranges, data.root)
    wrong, beside = copies(data.root, data.train, data.test)
    return [*filter(None, [warning, passed_over(data)]), *notes, *wrong, *beside], measured


def passed_over(data: ReIDData) -> str | None:
    """Name the pictures in the people's folders that the reader does not use, if any: of nobody by the layout, or of
    people whom it reads. People who are on none of a published set's lists are left out on purpose. Notes what systems
    have made in the folders of a published set; the reader of other folders has noted it."""
    used = set(map(os.path.abspath, data.pictures))
    people = {_number(name) for part in (data.train, data.test) for name in part.names.values()}
    left, skipped = [], []
    for folder in data.folders:
        for path in walk(data.root / folder, skipped):
            if os.path.abspath(data.root / folder / path) not in used:
                labels = data.layout.labels(data.root / folder / path)
                if not labels or not labels.identity or _number(labels.identity) in people:
                    left.append(Path(folder, path).as_posix())
    note_skipped([path for path in skipped if is_systems(path.name) and data.name != "folder"], data.root)
    remedy = "move them to a person's folder, or away" + ", or give a data.layout" * (data.name == "folder")
    return f"pictures that are not used: {summary(sorted(left))}; {remedy}" if left else None


def _number(person: str) -> str:
    """Return what the names 7, 0007 and test/0007 share."""
    return person.rpartition("/")[2].zfill(4)


def measured_ranges(config: DataConfig, formats: Formats) -> dict[str, Range]:
    """Measure the ranges of values of the training pictures if they are to be measured."""
    if config.sixteen_bit != "measured" or not formats.high_bit_depth:
        return {}
    return measure_ranges(formats.high_bit_depth, config.no_value)


def check_pictures(images: ImageSet) -> Formats:
    """Raise InputError unless every picture exists, is not empty and has a valid header; return their formats."""
    problems, formats = look_at(images)
    refuse_unreadable(problems)
    return formats


def decode_all(data: ReIDData, ranges: ValueRanges) -> tuple[dict[Path, BrokenPictureError], list[Path]]:
    """Decode each picture completely, on all cores; returns the errors of those that fail, and the infrared pictures
    with colours, both sorted."""
    each = {
        path: (bool(infrared), ranges.of(infrared, camera))
        for images in (data.train, data.test)
        for path, infrared, camera in zip(images.paths, images.infrared, images.cameras, strict=True)
    }
    pictures = sorted(each.items())
    found = in_processes(_decoding_problem, pictures, _CHUNK, str(data.root))
    shown = progress(found, len(pictures), "decoding", " pictures")
    results = {path: result for (path, _), result in zip(pictures, shown, strict=True) if result}
    broken = {path: result for path, result in results.items() if isinstance(result, BrokenPictureError)}
    return broken, [path for path in results if path not in broken]


def _decoding_problem(picture: tuple[Path, tuple[bool, Shown | None]]) -> BrokenPictureError | bool:
    """Return what is wrong with a picture, or whether it is infrared with colours."""
    path, (infrared, value_range) = picture
    try:
        pixels = read_pixels(path, True, value_range)
    except BrokenPictureError as error:
        return error
    return infrared and has_colours(pixels)


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
