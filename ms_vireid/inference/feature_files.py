"""Feature files: what `extract.py` writes and others read.

An `.npz` file, not compressed, with N rows in the order of the folder or the list (skipped pictures have none):

    features    float32 [N, C]   after BNNeck, L2-normalised: similarity is the inner product
    paths       str [N]          relative to the folder of the pictures, with forward slashes
    modality    str [N]          "visible" or "infrared"
    identities  str [N]          as the folders are called, "" where they do not say
    cameras     int32 [N]        as the folders say, -1 where they do not
    info        str []           JSON: format, version (of ms_vireid), checkpoint (file, sha256, epoch), config (the
                                 run's), images (absolute path of the folder), skipped (picture: why)
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np
from pydantic import BaseModel, ValidationError

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.data.records import ImageSet
from ms_vireid.data.validation import refuse_names
from ms_vireid.files.checks import DAMAGED, check_archive, require_file
from ms_vireid.files.writing import whole

FORMAT = 2
COLUMNS = {"paths": "U", "modality": "U", "identities": "U", "cameras": "i"}  # kinds of the columns besides features
_MAKE = "make it with ms_vireid/extract.py"


class _Source(BaseModel):
    file: str
    sha256: str


class Info(BaseModel):
    """What `info` must hold."""

    format: int
    version: str
    checkpoint: _Source
    config: dict
    images: str
    skipped: dict[str, str]


@dataclass(frozen=True, eq=False)
class Features:
    """The arrays of a feature file, and its `info` as a dictionary."""

    features: np.ndarray
    paths: np.ndarray
    modality: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    info: dict

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, path: str) -> Path:
        """Where the picture of one of `paths` lay when its feature was extracted."""
        return Path(self.info["images"], path)

    def rows(self, index: np.ndarray) -> "Features":
        return replace(self, **{name: getattr(self, name)[index] for name in ("features", *COLUMNS)})


@dataclass(frozen=True)
class Pictures:
    """Pictures without features yet. names: N paths relative to `root`. identities: str [N], "" where unknown."""

    root: Path
    names: tuple[Path, ...]
    images: ImageSet
    identities: np.ndarray

    def with_features(self, features: np.ndarray, info: dict) -> Features:
        """features: float32 [N, C]. info: of a feature file but for `images`."""
        return Features(
            features,
            np.array([name.as_posix() for name in self.names]),
            np.array(MODALITIES)[self.images.infrared.astype(int)],
            self.identities,
            self.images.cameras,
            info | {"images": str(self.root)},
        )


def save_features(path: Path | str, content: Features) -> None:
    """The same content gives the same bytes; raises InputError as `whole` does."""
    write_archive(path, content, features=content.features)


def write_archive(path: Path, content: Features, **arrays: np.ndarray) -> None:
    """An archive of these arrays and of all of `content` but the features; raises InputError as `whole` does."""
    columns = {name: getattr(content, name) for name in COLUMNS}
    info = np.array(json.dumps(content.info, sort_keys=True))
    with whole(path) as temporary, ZipFile(temporary, "w") as archive:
        for name, array in (arrays | columns | {"info": info}).items():
            with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def load_features(path: Path | str) -> Features:
    """Read and check a feature file; raises InputError as `read_archive` and `check_columns`, and for features that are
    missing, misshapen, not finite or not L2-normalised."""
    path = Path(path)
    held = read_archive(path, "a feature file", _MAKE)
    features = held.get("features")
    if not isinstance(features, np.ndarray):
        raise InputError(f"{path}: is not a feature file: lacks features; {_MAKE}")
    if features.ndim != 2 or features.dtype != np.float32 or not len(features):
        raise InputError(f"{path}: features are {features.dtype} {features.shape}, they must be float32 [N, C]")
    content = Features(features, *check_columns(path, held, len(features)))
    norms = np.sqrt(np.einsum("nc,nc->n", features, features))
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= 1e-3))  # not finite, or further off than float16's rounding
    if len(wrong):
        row = wrong[0]
        raise InputError(f"{path}: row {row} ({content.paths[row]}) has norm {norms[row]:.4g}, it must be 1")
    return content


def read_archive(path: Path, what: str, remedy: str) -> dict[str, np.ndarray | bytes]:
    """The members of an archive by name. Raises InputError if there is no such file, it is not `what` it should be or
    damaged, or there is not enough memory."""
    require_file(path, f"file; {remedy}")
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except DAMAGED as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is not {what} ({why}); {remedy}") from None


def check_columns(path: Path, held: dict[str, np.ndarray | bytes], count: int) -> tuple[np.ndarray | dict, ...]:
    """The columns besides the features of `count` pictures, in the order of `Features`, with `info` as a dictionary.
    Raises InputError if one is missing, misshapen or of another type or version."""
    lacks = sorted(name for name in ("info", *COLUMNS) if not isinstance(held.get(name), np.ndarray))
    if lacks:
        raise InputError(f"{path}: is not a feature file: lacks {', '.join(lacks)}; {_MAKE}")
    info = _info(path, held["info"])
    for name, kind in COLUMNS.items():
        if held[name].shape != (count,) or held[name].dtype.kind != kind:
            raise InputError(f"{path}: {name} is {held[name].dtype} {held[name].shape}, it must be [{count}]")
    refuse_names([*held["paths"].tolist(), *held["identities"].tolist()], path)
    if strange := sorted(set(held["modality"].tolist()) - set(MODALITIES)):
        raise InputError(f"{path}: modality {strange[0]!r} is not one of {', '.join(MODALITIES)}")
    return *(held[name] for name in COLUMNS), info


def _info(path: Path, text: np.ndarray) -> dict:
    try:
        tree = json.loads(str(text))
        info = Info.model_validate(tree)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "info"
        raise InputError(f"{path}: its info lacks {where}, or it is not as it should be; extract again") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: its info is not JSON; {_MAKE}") from None
    if info.format != FORMAT:
        raise InputError(f"{path}: feature format {info.format}, this version reads {FORMAT}; extract again")
    return tree
