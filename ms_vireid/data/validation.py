"""Checks that readers share: all problems of a kind counted, the first ten named, in one line."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, refuse, summary
from ms_vireid.data.pictures import SUFFIXES, open_picture
from ms_vireid.data.records import ImageSet

_DIGITS = 10  # that an identity has fewer of: it is kept as int32


def require_directory(path: Path, remedy: str) -> Path:
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; {remedy}")
    return path


def list_pictures(directory: Path) -> list[Path]:
    """The pictures directly in a folder, sorted by name; other files (Thumbs.db and the like) are passed over."""
    with os.scandir(directory) as entries:
        names = sorted(e.name for e in entries if os.path.splitext(e.name)[1].lower() in SUFFIXES and not e.is_dir())
    refuse_names(names, directory)
    return [directory / name for name in names]


def refuse_names(names: Iterable[str], root: Path) -> None:
    """Raise InputError for names of pictures that cannot be printed: control characters, bytes that are no UTF-8."""
    refuse((repr(name) for name in names if not name.isprintable()), f"{root}: names that cannot be printed", "rename")


def read_identities(listing: Path, remedy: str) -> list[int]:
    """One line of comma-separated numbers; an InputError names the file, its line and what is wrong."""
    fields = [field.strip() for field in ",".join(read_lines(listing, remedy)).split(",") if field.strip()]
    wrong = (f"'{f[:20]}'" for f in fields if not f.isdecimal() or len(f) >= _DIGITS)
    refuse(wrong, f"{listing}:1: fields that are not identities", "use 1,2,3")
    if not fields:
        raise InputError(f"{listing}:1: lists no identity; {remedy}")
    return [int(field) for field in fields]


def read_labelled_paths(listing: Path, remedy: str) -> list[tuple[int, str, int]]:
    """Line number, path and label of every line `path label`; an InputError names the file and its wrong lines."""
    numbered = [
        (number, line.rsplit(maxsplit=1)) for number, line in enumerate(read_lines(listing, remedy), 1) if line.strip()
    ]
    wrong = (f"line {n} '{' '.join(f)}'" for n, f in numbered if not _is_path_and_label(f))
    refuse(wrong, f"{listing}: lines that are not 'path label', the path relative to data.root", "correct them")
    if not numbered:
        raise InputError(f"{listing}:1: lists no picture; {remedy}")
    return [(number, path, int(label)) for number, (path, label) in numbered]


def _is_path_and_label(fields: list[str]) -> bool:
    return len(fields) == 2 and not Path(fields[0]).is_absolute() and fields[1].isdecimal() and len(fields[1]) < _DIGITS


def read_lines(listing: Path, remedy: str) -> list[str]:
    try:
        if listing.exists() and not listing.is_file():
            raise OSError("it is no regular file")
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
    """Every training identity needs pictures of both modalities.

    Returns:
        A warning if some have fewer than `num_instances` of one (they are repeated in a batch), else None.

    Raises:
        InputError: an identity has no picture of one modality, or there are no pictures at all.
    """
    if not len(train):
        raise InputError(f"{root}: the training set holds no pictures; check the folder and its lists of identities")
    identities = np.unique(train.identities)
    few = []
    for name, mask in (("visible", ~train.infrared), ("infrared", train.infrared)):
        counts = (train.identities[mask][None, :] == identities[:, None]).sum(axis=1)
        missing = [str(identity) for identity in identities[counts == 0]]
        refuse(missing, f"{root}: training identities without {name} pictures", "add some or drop them from the list")
        few += [
            f"{identity} has {count} {name}"
            for identity, count in zip(identities, counts, strict=True)
            if count < num_instances
        ]
    if not few:
        return None
    return f"identities with fewer than {num_instances} pictures of a modality repeat them: {summary(few)}"
