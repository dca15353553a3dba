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

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_vireid.data.layout import MODALITIES
from ms_vireid.errors import InputError

FORMAT = 1
COLUMNS = {"paths": "U", "modality": "U", "identities": "i", "cameras": "i"}  # kinds of the columns besides features
INFO_KEYS = ("format", "version", "checkpoint", "config", "images", "skipped")
_ROWS_AT_ONCE = 1 << 16
_NORM_TOLERANCE = 1e-3  # features rounded to float16 and back are still within it


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
        return len(self.features)

    @property
    def infrared(self) -> np.ndarray:
        """bool [N]"""
        return self.modality == "infrared"


def save_features(path: Path, content: Features) -> None:
    """Whole or not at all: a temporary name, then a rename. The same content gives the same bytes.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    columns = {name: getattr(content, name) for name in ("features", *COLUMNS)}
    try:
        with temporary.open("wb") as file:
            np.savez(file, **columns, info=np.array(json.dumps(content.info, sort_keys=True)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error}); free space or choose another --output") from None


def load_features(path: Path) -> Features:
    """Read and check a feature file.

    Raises:
        InputError: no such file, not a feature file, or of another version; an array that is missing, misshapen or of
            another type; features that are not finite or not L2-normalised.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with ms_vireid/extract.py") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: is not a feature file ({error}); make it with ms_vireid/extract.py") from None
    missing = sorted({"features", "info", *COLUMNS} - held.keys())
    if missing:
        raise InputError(
            f"{path}: is not a feature file: lacks {', '.join(missing)}; make it with ms_vireid/extract.py"
        )
    info = _info(path, held["info"])
    features = held["features"]
    if features.ndim != 2 or features.dtype != np.float32:
        raise InputError(f"{path}: features are {features.dtype} {features.shape}, they must be float32 [N, C]")
    for name, kind in COLUMNS.items():
        if held[name].shape != (len(features),) or held[name].dtype.kind != kind:
            raise InputError(f"{path}: {name} is {held[name].dtype} {held[name].shape}, it must be [{len(features)}]")
    if strange := sorted(set(held["modality"].tolist()) - set(MODALITIES)):
        raise InputError(f"{path}: modality {strange[0]!r} is not one of {', '.join(MODALITIES)}")
    _check_rows(path, features, held["paths"])
    return Features(features, *(held[name] for name in COLUMNS), info)


def _info(path: Path, text: np.ndarray) -> dict:
    try:
        info = json.loads(str(text))
        absent = [key for key in INFO_KEYS if key not in info]
    except (ValueError, TypeError):
        raise InputError(f"{path}: its info is not JSON; make it with ms_vireid/extract.py") from None
    if absent:
        raise InputError(f"{path}: its info lacks {', '.join(absent)}; make it with ms_vireid/extract.py")
    if info["format"] != FORMAT:
        raise InputError(f"{path}: feature format {info['format']}, this version reads {FORMAT}; extract again")
    return info


def _check_rows(path: Path, features: np.ndarray, names: np.ndarray) -> None:
    for start in range(0, len(features), _ROWS_AT_ONCE):
        rows = features[start : start + _ROWS_AT_ONCE]
        norms = np.sqrt(np.einsum("nc,nc->n", rows, rows))
        wrong = np.flatnonzero(~(np.abs(norms - 1) <= _NORM_TOLERANCE))  # also catches what is not finite
        if len(wrong):
            where = start + wrong[0]
            raise InputError(f"{path}: row {where} ({names[where]}) has norm {norms[wrong[0]]:.4g}, it must be 1")
