"""Checks that readers share. An error counts all problems and names the first ten, in one line."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, refuse, summary
from ms_vireid.data.pictures import SUFFIXES, open_picture
from ms_vireid.data.records import ImageSet, image_set

_DIGITS = 10  # identities have fewer, to fit int32


def require_directory(path: Path, remedy: str, *below: str) -> None:
    """Raise InputError unless the folder is there, and those `below` it."""
    for folder in (path, *(path / name for name in below)):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; {remedy}")


def list_pictures(directory: Path) -> list[Path]:
    """The pictures directly in a folder, sorted by name; it skips other files (Thumbs.db and the like)."""
    with os.scandir(directory) as entries:
        names = sorted(e.name for e in entries if os.path.splitext(e.name)[1].lower() in SUFFIXES and not e.is_dir())
    refuse_names(names, directory)
    return [directory / name for name in names]


def refuse_names(names: Iterable[str], root: Path) -> None:
    """Raise InputError for names of pictures that cannot be printed: control characters, or not UTF-8."""
    refuse((repr(name) for name in names if not name.isprintable()), f"{root}: names that cannot be printed", "rename")


def read_identities(listing: Path, remedy: str) -> list[int]:
    """One line of comma-separated numbers; an InputError names the file, its line and what is wrong."""
    fields = [field.strip() for field in ",".join(read_lines(listing, remedy)).split(",") if field.strip()]
    wrong = (f"'{f[:20]}'" for f in fields if not f.isdecimal() or len(f) >= _DIGITS)
    refuse(wrong, f"{listing}:1: fields that are not identities", "use 1,2,3")
    if not fields:
        raise InputError(f"{listing}:1: lists no identity; {remedy}")
    return [int(field) for field in fields]


def read_identity_folders(root: Path, cameras: Sequence[tuple[Path, int, bool]], identities: Iterable[int]) -> ImageSet:
    """The pictures of `identities`, ascending, in the folders `{identity:04d}` of each camera.

    cameras: folder, number, and whether it is infrared. A camera has no folder for an identity that it has not seen.
    Raises InputError for an identity without any picture.
    """
    rows, absent = [], []
    for identity in sorted(set(identities)):
        folders = [(folder / f"{identity:04d}", camera, infrared) for folder, camera, infrared in cameras]
        found = [
            (path, identity, camera, infrared)
            for folder, camera, infrared in folders
            if folder.is_dir()
            for path in list_pictures(folder)
        ]
        rows += found
        if not found:
            absent.append(f"{identity:04d}")
    refuse(absent, f"{root}: identities without a picture under any camera", "check the lists of identities")
    return image_set(rows)


def read_labelled_paths(listing: Path, remedy: str) -> list[tuple[int, str, int]]:
    """Line number, path and label of every line `path label`; an InputError names the file and its wrong lines."""
    found, wrong = [], []
    for number, line in enumerate(read_lines(listing, remedy), 1):
        fields = line.rsplit(maxsplit=1)
        path, label = fields if len(fields) == 2 else ("", "")
        if label.isdecimal() and len(label) < _DIGITS and not Path(path).is_absolute():
            found.append((number, path, int(label)))
        elif fields:
            wrong.append(f"line {number} '{line.strip()}'")
    refuse(wrong, f"{listing}: lines that are not 'path label', the path relative to data.root", "correct them")
    if not found:
        raise InputError(f"{listing}:1: lists no picture; {remedy}")
    return found


def read_lines(listing: Path, remedy: str) -> list[str]:
    try:
        if listing.exists() and not listing.is_file():
            raise OSError("it is not a regular file")
        return listing.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{listing}: cannot be read ({error}); {remedy}") from None


def check_pictures(images: ImageSet) -> None:
    """Raise InputError unless every picture is there, not empty, and begins like a picture."""
    with ThreadPoolExecutor() as pool:
        problems = [p for p in pool.map(_picture_problem, dict.fromkeys(images.paths), chunksize=256) if p]
    refuse(problems, "unreadable pictures", "replace or remove them")


def _picture_problem(path: Path) -> str | None:
    if not path.exists():
        return f"{path} does not exist"
    if path.is_file() and path.stat().st_size == 0:
        return f"{path} is empty"
    try:
        with open_picture(path):
            return None
    except InputError:
        return f"{path} cannot be read"


def check_training_identities(train: ImageSet, num_instances: int, root: Path) -> str | None:
    """Raise InputError unless every training identity has pictures of both modalities, and there are any at all.

    Returns:
        A warning if some have fewer than `num_instances` of one (a batch repeats them), else None.
    """
    if not len(train):
        raise InputError(f"{root}: the training set holds no pictures; check the folder and its lists of identities")
    identities, few = np.unique(train.identities), []
    for name, mask in (("visible", ~train.infrared), ("infrared", train.infrared)):
        counts = np.bincount(train.labels[mask], minlength=len(identities))
        missing = map(str, identities[counts == 0])
        refuse(missing, f"{root}: training identities without {name} pictures", "add some or drop them from the list")
        pairs = zip(identities, counts, strict=True)
        few += [f"{identity} has {count} {name}" for identity, count in pairs if count < num_instances]
    if not few:
        return None
    return f"identities with fewer than {num_instances} pictures of a modality repeat them: {summary(few)}"
