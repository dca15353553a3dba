"""Digests of the pictures that a model was trained on: a record that is stored with its weights."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError, first_few
from ms_vireid.data.records import ImageSet
from ms_vireid.files.checks import note

_DIGEST = 6  # bytes; of a million pictures one in 280 million others then looks like one of them
_ENDS = 1 << 16  # bytes that are read at either end of a file, which are all of most pictures


def record(paths: Sequence[Path]) -> str:
    """Digests of pictures as a text, base64 of 6 bytes each."""
    return _written(_digests(paths))


def before(began_from: Mapping[str, str]) -> str:
    """What weights had been trained on before a training starts from them: both entries of their file's record."""
    return joined(*(began_from.get(key, "") for key in ("seen_before", "seen")))


def joined(*records: str) -> str:
    """One record of several."""
    return _written(np.concatenate([_read(one) for one in records]))


def unseen(images: ImageSet, seen: str, where: Path, quiet: bool = False) -> ImageSet:
    """`unknown`, with a note of how many were left out, unless `quiet`. Raises InputError if nobody is left."""
    left = unknown(images, seen)
    if len(left) == len(images):
        return images
    names, kept = images.names, left.names
    if not kept:
        raise InputError(f"{where}: the model was trained on all people to test on; give pictures of others")
    if not quiet:
        gone = [name for identity, name in names.items() if identity not in kept]
        counted = f"{len(gone)} of the {len(names)} people to test on, who are left out"
        note(where, f"the model was trained on {counted}: {first_few(gone)}")
    return left


def unknown(images: ImageSet, seen: str) -> ImageSet:
    """Leave out the people who are on a picture of the record. A picture that several people share (black, or "no
    signal") tells of nobody."""
    if not seen:
        return images
    digests = _digests(images.paths)
    _, place = np.unique(digests, return_inverse=True)
    of_people = np.unique(np.stack([place, images.identities]), axis=1)[0]
    alone = np.bincount(of_people, minlength=len(place))[place] == 1
    known = images.identities[np.isin(digests, _read(seen)) & alone]
    return images.subset(~np.isin(images.identities, known))


def _digests(paths: Sequence[Path]) -> np.ndarray:
    return np.array([_digest(path) for path in paths], f"S{_DIGEST}")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_ENDS)
        size = file.seek(0, 2)
        if size > _ENDS:
            file.seek(max(_ENDS, size - _ENDS))
            content += file.read()
    return hashlib.blake2b(content, digest_size=_DIGEST, salt=size.to_bytes(8, "little")).digest()


def _written(digests: np.ndarray) -> str:
    return base64.b64encode(np.unique(digests).tobytes()).decode()


def _read(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), f"S{_DIGEST}")
