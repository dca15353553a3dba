"""What every reader returns: pictures with their identities, cameras and modalities."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ms_vireid.data.contents import digests
from ms_vireid.data.folder_layout import FolderLayout
from ms_vireid.files.checks import note

CONTENT = "content:"  # begins a data set's checksum; an earlier version's is of names and sizes


def same_name(name: str) -> str:
    """Return what all spellings of a name in Unicode share: macOS writes an accent apart from its letter (NFD)."""
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class ImageSet:
    """Pictures and their annotations.

    paths: N paths. identities, cameras: int32 [N], the data set's own numbers (cameras 1-based).
    infrared: bool [N], False for a visible picture. people: the name of each identity, that of its folders; without
    one, its number is its name.
    """

    paths: tuple[Path, ...]
    identities: np.ndarray
    cameras: np.ndarray
    infrared: np.ndarray
    people: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def labels(self) -> np.ndarray:
        """Identities renumbered densely from 0 in ascending order, int32 [N]."""
        return np.unique(self.identities, return_inverse=True)[1].astype(np.int32)

    @property
    def num_identities(self) -> int:
        return len(np.unique(self.identities))

    def name(self, index: int) -> str:
        """Return the name of the person on a picture."""
        identity = int(self.identities[index])
        return self.people.get(identity) or str(identity)

    @property
    def names(self) -> dict[int, str]:
        """The name of each identity, in ascending order of identities."""
        identities, first = np.unique(self.identities, return_index=True)
        return {int(identity): self.name(index) for identity, index in zip(identities, first, strict=True)}

    def subset(self, index: np.ndarray) -> "ImageSet":
        """Return the pictures at `index` (integers or a boolean mask over N)."""
        index = np.arange(len(self))[index]
        columns = (column[index] for column in (self.identities, self.cameras, self.infrared))
        return ImageSet(tuple(self.paths[i] for i in index), *columns, self.people)


def image_set(rows: list[tuple[Path, int, int, bool]]) -> ImageSet:
    """Build an ImageSet from rows of (path, identity, camera, is infrared), in their order."""
    paths, identities, cameras, infrared = zip(*rows, strict=True) if rows else ((), (), (), ())
    return ImageSet(tuple(paths), np.array(identities, np.int32), np.array(cameras, np.int32), np.array(infrared, bool))


@dataclass(frozen=True)
class ReIDData:
    """A data set: training pictures, test pictures, and the name of the protocol. folders: below the root, that the
    people's pictures are in. layout: how these lie there."""

    name: str
    root: Path
    protocol: str  # "sysu_mm01", "regdb" or "llcm", as in evaluate_ranking
    train: ImageSet
    test: ImageSet
    layout: FolderLayout | None = None
    folders: tuple[str, ...] = ()

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Training and test pictures."""
        return *self.train.paths, *self.test.paths

    def tested_on(self) -> str:
        """Say how many of a folder's people are tested on."""
        tested = self.test.num_identities
        return f"tested on {tested} of {self.train.num_identities + tested} people"

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over the sorted relative paths and the contents of all pictures, after `CONTENT`."""
        paths = list(dict.fromkeys(self.pictures))
        return f"{CONTENT}{self._checksum(zip(paths, map(bytes.hex, digests(paths).tolist()), strict=True))}"

    def has_checksum(self, stored: str) -> bool:
        """Whether these are the pictures of a stored checksum, also of one by an earlier version."""
        return stored == (self.checksum if stored.startswith(CONTENT) else self._checksum_by_sizes)

    @cached_property
    def _checksum_by_sizes(self) -> str:
        note(self.root, "compared with a run of an earlier version, which knows its pictures by names and sizes alone")
        return self._checksum((path, path.stat().st_size) for path in {*self.pictures})

    def _checksum(self, about: Iterable[tuple[Path, object]]) -> str:
        """Hash what is known of paths, the same for all spellings in Unicode."""
        named = ((Path(same_name(str(path.relative_to(self.root)))), value) for path, value in about)
        lines = (f"{name.as_posix()}\t{value}\n" for name, value in sorted(named))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
