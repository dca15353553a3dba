"""Feature files: what `extract.py` writes and others read.

An `.npz` file, not compressed, with N rows in the order of the folder or the list (skipped pictures have none):

    features    float32 [N, C]   after BNNeck, L2-normalised: similarity is the inner product
    paths       str [N]          relative to the folder of the pictures, with forward slashes
    modality    str [N]          "visible" or "infrared"
    identities  int32 [N]        as the folders say, -1 where they do not
    cameras     int32 [N]        the same
    info        str []           JSON: format, version (of ms_vireid), checkpoint (file, sha256, epoch), config (the
                                 run's), images (absolute path of the folder), skipped (picture: why)
"""

import hashlib
import json
import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from pydantic import BaseModel, ValidationError

from ms_vireid.command.errors import InputError
from ms_vireid.data.layout import MODALITIES
from ms_vireid.data.validation import refuse_names
from ms_vireid.devices.memory import require_memory
from ms_vireid.files.checks import DAMAGED, check_archive, require_file
from ms_vireid.files.writing import whole

FORMAT = 1
COLUMNS = {"paths": "U", "modality": "U", "identities": "i", "cameras": "i"}  # kinds of the columns besides features
_ROWS_AT_ONCE = 1 << 16
_NORM_TOLERANCE = 1e-3  # features rounded to float16 and back are still within it


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
class RowsOnDisk:
    """float32 [N, C] that lie uncompressed in a file from byte `offset` on; `rows[start:stop]` reads just those.

    Raises:
        InputError: rows that are read are not finite or not L2-normalised, or the file cannot be read.
    """

    path: Path
    offset: int
    shape: tuple[int, int]
    names: np.ndarray  # str [N], for errors

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        count, width = max(stop - start, 0), self.shape[1]
        try:
            block = np.fromfile(self.path, np.float32, count * width, offset=self.offset + 4 * start * width)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error})") from None
        if block.size != count * width:
            raise InputError(f"{self.path}: ends before row {stop}; extract again")
        block = block.reshape(count, width)
        _check_rows(self.path, block, self.names[start:stop], start)
        return block


@dataclass(frozen=True, eq=False)
class Features:
    """The arrays of a feature file, and its `info` as a dictionary."""

    features: np.ndarray | RowsOnDisk
    paths: np.ndarray
    modality: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    info: dict

    def __len__(self) -> int:
        return len(self.features)

    @property
    def infrared(self) -> np.ndarray:
        """bool [N]"""
        return self.modality == "infrared"

    def file(self, path: str) -> Path:
        """Where the picture of one of `paths` lay when its feature was extracted."""
        return Path(self.info["images"], path)


def save_features(path: Path, content: Features) -> None:
    """The same content gives the same bytes; raises InputError as `whole` does."""
    columns = {name: getattr(content, name) for name in ("features", *COLUMNS)}
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **columns, info=np.array(json.dumps(content.info, sort_keys=True)))


def load_features(path: Path) -> Features:
    """Read and check a feature file.

    Raises:
        InputError: no such file, not a feature file, or of another version; an array that is missing, misshapen or of
            another type; features that are not finite or not L2-normalised.
    """
    content = open_features(path)
    if isinstance(content.features, RowsOnDisk):
        size = 4 * math.prod(content.features.shape)
        require_memory(size, f"{path}: reading it", "use another copy, or a machine with more memory")
    return replace(content, features=content.features[:])


def open_features(path: Path) -> Features:
    """As `load_features`, but the features stay on disk: `RowsOnDisk`, checked as they are read.

    A compressed file is read into memory instead.
    """
    require_file(path, "file; make it with ms_vireid/extract.py")
    try:
        check_archive(path, "features.npy")
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files if name != "features"}
            if "features" in archive.files:
                rows = _rows_on_disk(path, archive, held.get("paths"))
                held["features"] = archive["features"] if rows is None else rows
    except DAMAGED as error:
        raise InputError(f"{path}: is not a feature file ({error}); make it with ms_vireid/extract.py") from None
    _refuse_missing(path, {"features"} - held.keys())
    features = held["features"]
    if isinstance(features, np.ndarray) and (features.ndim != 2 or features.dtype != np.float32):
        raise InputError(f"{path}: features are {features.dtype} {features.shape}, they must be float32 [N, C]")
    content = Features(features, *check_columns(path, held, len(features)))
    if isinstance(features, np.ndarray):
        _check_rows(path, features, content.paths)
    return content


def check_columns(path: Path, held: dict[str, np.ndarray], count: int) -> tuple[np.ndarray | dict, ...]:
    """The columns besides the features of `count` pictures, in the order of `Features`, with `info` as a dictionary.

    Raises:
        InputError: one is missing, misshapen or of another type, or of another version.
    """
    _refuse_missing(path, {"info", *COLUMNS} - held.keys())
    if damaged := [name for name in ("info", *COLUMNS) if not isinstance(held[name], np.ndarray)]:
        raise InputError(f"{path}: {damaged[0]} is not an array; make it with ms_vireid/extract.py")
    info = _info(path, held["info"])
    for name, kind in COLUMNS.items():
        if held[name].shape != (count,) or held[name].dtype.kind != kind:
            raise InputError(f"{path}: {name} is {held[name].dtype} {held[name].shape}, it must be [{count}]")
    refuse_names(held["paths"].tolist(), path)
    if strange := sorted(set(held["modality"].tolist()) - set(MODALITIES)):
        raise InputError(f"{path}: modality {strange[0]!r} is not one of {', '.join(MODALITIES)}")
    return *(held[name] for name in COLUMNS), info


def _refuse_missing(path: Path, names: set[str]) -> None:
    if names:
        lacks = ", ".join(sorted(names))
        raise InputError(f"{path}: is not a feature file: lacks {lacks}; make it with ms_vireid/extract.py")


def _rows_on_disk(path: Path, archive: np.lib.npyio.NpzFile, names: np.ndarray) -> RowsOnDisk | None:
    """Where the features lie in the file; None unless they lie there as float32 [N, C], uncompressed."""
    entry = archive.zip.getinfo("features.npy")
    if entry.compress_type != zipfile.ZIP_STORED:
        return None
    with archive.zip.open(entry) as array:
        read_header = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}[read_magic(array)]
        shape, fortran_order, dtype = read_header(array)
        header = array.tell()
    if fortran_order or dtype != np.float32 or len(shape) != 2:
        return None
    if header + 4 * shape[0] * shape[1] != entry.file_size:
        raise ValueError("features.npy is cut off")
    with path.open("rb") as file:  # the entry's own header ends in a name and extra fields of varying length
        file.seek(entry.header_offset + 26)
        lengths = np.fromfile(file, "<u2", 2)
    return RowsOnDisk(path, entry.header_offset + 30 + int(lengths.sum()) + header, shape, names)


def file_checksum(path: Path) -> str:
    """SHA-256, as `info` has it of the checkpoint."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _info(path: Path, text: np.ndarray) -> dict:
    try:
        tree = json.loads(str(text))
        info = Info.model_validate(tree)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "info"
        raise InputError(f"{path}: its info lacks {where}, or it is not as it should be; extract again") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: its info is not JSON; make it with ms_vireid/extract.py") from None
    if info.format != FORMAT:
        raise InputError(f"{path}: feature format {info.format}, this version reads {FORMAT}; extract again")
    return tree


def _check_rows(path: Path, features: np.ndarray, names: np.ndarray, first: int = 0) -> None:
    """features: float32 [n, C], the rows from `first` on; names: str [n]."""
    for start in range(0, len(features), _ROWS_AT_ONCE):
        rows = features[start : start + _ROWS_AT_ONCE]
        norms = np.sqrt(np.einsum("nc,nc->n", rows, rows))
        wrong = np.flatnonzero(~(np.abs(norms - 1) <= _NORM_TOLERANCE))  # also catches what is not finite
        if len(wrong):
            where = start + wrong[0]
            raise InputError(
                f"{path}: row {first + where} ({names[where]}) has norm {norms[wrong[0]]:.4g}, it must be 1"
            )
