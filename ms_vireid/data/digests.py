"""Pictures that are equal, byte for byte: those that a model was trained on, a record that is stored with its weights,
and those that a set has twice."""

import base64
import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, first_few, summary
from ms_vireid.data.contents import DIGEST, digests
from ms_vireid.data.records import ImageSet
from ms_vireid.files.checks import note

RECORD = ("seen", "seen_before", "shared")  # keys of `training_record`


def training_record(train: Sequence[Path], test: Sequence[Path], began_from: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of a checkpoint's record that are not empty, base64 of 6 bytes for each picture.

    seen: the pictures that it is trained on. seen_before: those that its first weights were trained on, whose record is
    `began_from`. shared: those of `seen` that its own test set has too.
    """
    seen = digests(train)
    before = joined(*(began_from.get(key, "") for key in ("seen_before", "seen")))
    entries = _written(seen), before, _written(np.intersect1d(seen, digests(test)))
    return {key: text for key, text in zip(RECORD, entries, strict=True) if text}


def joined(*records: str) -> str:
    """One record of several."""
    return _written(np.concatenate([_read(one) for one in records]))


def without(record: str, other: str) -> str:
    """A record without the pictures of another."""
    return _written(np.setdiff1d(_read(record), _read(other)))


def unseen(images: ImageSet, seen: str, where: Path, shared: str = "", quiet: bool = False) -> ImageSet:
    """`unknown`, with notes, unless `quiet`, of the people who are left out, and of the pictures of either record that
    are tested on all the same. shared: a record that leaves out nobody. Raises InputError if nobody is left."""
    left = unknown(images, seen)
    names, kept = images.names, left.names
    by_ends = int(np.sum(_recorded(images.paths, seen) & ~np.isin(digests(images.paths), _read(seen))))
    if by_ends and not quiet:
        told = f"knows pictures of more than 128 KiB by their ends alone, and takes {by_ends} to test on for its own"
        note(where, f"the model's record, by an earlier version, {told}; train again to compare them whole")
    if names and not kept:
        raise InputError(f"{where}: the model was trained on all people to test on; give pictures of others")
    if quiet:
        return left
    if gone := [name for identity, name in names.items() if identity not in kept]:
        counted = f"{len(gone)} of the {len(names)} people to test on, who are left out"
        note(where, f"the model was trained on {counted}: {first_few(gone)}")
    tested = left.subset(_recorded(left.paths, joined(seen, shared)))
    if len(tested):
        counted = f"{len(tested)} pictures of {tested.num_identities} people to test on, byte for byte"
        note(where, f"the model was trained on {counted}; results are too good")
    return left


def unknown(images: ImageSet, seen: str) -> ImageSet:
    """Leave out the people who are alone on a picture of the record, and those who are on no other. A picture that
    several people share (black, or "no signal") tells of nobody."""
    while (recorded := _recorded(images.paths, seen)).any():
        alone = ~_in_several(_places(digests(images.paths)), images.identities)
        known = np.isin(images.identities, images.identities[recorded & alone])
        known |= ~np.isin(images.identities, images.identities[~recorded])
        if not known.any():
            break
        images = images.subset(~known)
    return images


def _recorded(paths: Sequence[Path], seen: str) -> np.ndarray:
    """Whether each file is in the record, which has digests by ends if an earlier version wrote it."""
    record = _read(seen)
    if not len(record):
        return np.zeros(len(paths), bool)
    return np.isin(digests(paths), record) | np.isin(digests(paths, by_ends=True), record[record != b""])


def copies(root: Path, *parts: ImageSet) -> tuple[list[str], list[str]]:
    """Say which pictures a set has twice, byte for byte, one line for each kind: those that make results wrong, and
    copies beside each other. parts: to train on and to test on, or to test on alone."""
    paths = [path for images in parts for path in images.paths]
    part = np.repeat(np.arange(len(parts)), list(map(len, parts)))
    person = _places(part, np.concatenate([images.identities for images in parts]))
    infrared = np.concatenate([images.infrared for images in parts])
    content = digests(paths)
    picture = _places(content)
    inside = _places(picture, part)
    again = np.ones(len(paths), bool)
    again[np.unique(_places(inside, person, infrared), return_index=True)[1]] = False

    def lines(kinds: Mapping[str, np.ndarray], remedy: str) -> list[str]:
        found = {kind: np.flatnonzero(chosen & (content != b"")) for kind, chosen in kinds.items()}
        counted = {kind: (index, len(np.unique(person[index]))) for kind, index in found.items() if len(index)}
        return [
            f"{kind}, byte for byte, of {people} people: "
            f"{summary([os.path.relpath(paths[i], root) for i in index])}; {remedy}"
            for kind, (index, people) in counted.items()
        ]

    wrong = {
        "pictures both trained and tested on": _in_several(picture, part) & (part > 0),
        "pictures in both modalities": _in_several(inside, infrared),
        "pictures under several names": _in_several(inside, person),
    }
    beside = {"copies of a person's pictures": again}
    return lines(wrong, "results would be wrong; keep each once"), lines(beside, "keep each once")


def _places(*columns: np.ndarray) -> np.ndarray:
    """Number the different rows of columns from 0: int [N]."""
    place = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, number = np.unique(column, return_inverse=True)
        place = np.unique(place * len(values) + number, return_inverse=True)[1]
    return place


def _in_several(place: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Whether the picture in each row, by its place among the different ones, is in several groups."""
    first = np.unique(_places(place, group), return_index=True)[1]
    return np.bincount(place[first])[place] > 1


def pictures_checksum(images: ImageSet) -> str:
    """Return 16 hex digits that are equal for sets of the same pictures with the same people and cameras, in any order
    and whatever they are called."""
    people = defaultdict(list)
    rows = zip(digests(images.paths).tolist(), images.identities, images.cameras, images.infrared, strict=True)
    for content, identity, camera, infrared in rows:
        people[identity].append(f"{content.hex()} {camera} {infrared}")
    each = sorted(",".join(sorted(pictures)) for pictures in people.values())
    return hashlib.blake2b("\n".join(each).encode(), digest_size=8).hexdigest()


def _written(contents: np.ndarray) -> str:
    return base64.b64encode(np.unique(contents[contents != b""]).tobytes()).decode()


def _read(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), DIGEST)
