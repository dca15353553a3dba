"""Feature files, which `extract.py` writes and other commands read.

An uncompressed `.npz` with N rows in the order of the folder or the list, without skipped pictures:

    features    float32 [N, C]   after BNNeck, L2-normalised: similarity is the inner product
    paths       str [N]          relative to the folder of the pictures, with forward slashes
    modality    str [N]          "visible" or "infrared"
    identities  str [N]          names of the folders, "" where unknown
    cameras     int32 [N]        from the folders, -1 where unknown
    info        str []           JSON: format, version (of ms_vireid), checkpoint (file, sha256, epoch), config (the
                                 run's), images (absolute path of the folder), skipped (picture: why), tree (the
                                 folder that the layout of the paths begins in, and the layout; to read queries)
"""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated
from zipfile import ZipFile, ZipInfo

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from ms_vireid.command.arguments import as_path, require
from ms_vireid.command.errors import InputError, refuse
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.running import in_one_line
from ms_vireid.config import check_config
from ms_vireid.config.layout_templates import check_layout
from ms_vireid.config.schema import ValueRanges
from ms_vireid.data.folder_layout import FolderLayout
from ms_vireid.data.records import ImageSet
from ms_vireid.data.validation import refuse_names
from ms_vireid.evaluation.ranking import first_fault
from ms_vireid.files.checks import DAMAGED, check_archive, parse_json, require_file
from ms_vireid.files.writing import atomic_write, staged_folder, staging

FORMAT = 2
COLUMNS = {"paths": "U", "modality": "U", "identities": "U", "cameras": "i"}  # dtype kinds of the other columns
_MOST_MEMBERS = 100  # of an archive, with room for what later versions add
_MAKE = "make one with ms_vireid/extract.py"


class _Source(BaseModel):
    file: str
    sha256: str


class Tree(BaseModel):
    """Where a layout begins, and the layout, as `config.layout` takes it."""

    top: Annotated[str, Field(pattern=r"^[^\x00]*$")]
    layout: Annotated[str, AfterValidator(check_layout)]


class Info(BaseModel):
    """The required keys of `info`."""

    format: int
    version: str
    checkpoint: _Source
    config: dict
    images: Annotated[str, Field(pattern=r"^[^\x00]*$")]  # as a path may be
    skipped: dict[str, str]
    tree: Tree | None = None


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
        """The place of a picture, one of `paths`, when its feature was extracted."""
        return Path(self.info["images"], path)

    @property
    def layout(self) -> FolderLayout | None:
        """How the paths were read, if the file says so."""
        return _layout_in(self.info)

    @property
    def value_ranges(self) -> ValueRanges:
        """The values of 16 or 32 bits that the model sees as black and white."""
        return check_config(self.info["config"], self.info["checkpoint"]["file"]).data.value_ranges

    @property
    def made_by(self) -> str:
        """What two sets of features must share to be compared: the SHA-256 of their checkpoint or, where it says
        how values of 16 or 32 bits are shown, of both."""
        checkpoint, data = self.info["checkpoint"]["sha256"], self.info["config"].get("data")
        ranges, no_values = (data.get("sixteen_bit"), data.get("no_value")) if isinstance(data, dict) else (None, None)
        if ranges in (None, "full", "measured") and not no_values:
            return checkpoint
        ordered = json.dumps([ranges, no_values] if no_values else ranges, sort_keys=True)
        return hashlib.sha256(f"{checkpoint} {ordered}".encode()).hexdigest()

    def rows(self, index: np.ndarray) -> "Features":
        return replace(self, **{name: getattr(self, name)[index] for name in ("features", *COLUMNS)})


def _layout_in(info: dict) -> FolderLayout | None:
    tree = info.get("tree")
    return FolderLayout(Path(tree["top"]), tree["layout"]) if tree else None


def layout_of(path: Path, remedy: str) -> FolderLayout | None:
    """Return how the paths of a saved index were read; None if it does not say so, or is damaged. Raises InputError if
    it is missing."""
    require_file(path, f"file; {remedy}")
    try:
        check_archive(path, _MOST_MEMBERS)
        with np.load(path, allow_pickle=False) as archive:
            return _layout_in(Info.model_validate(parse_json(str(archive["info"]))).model_dump())
    except DAMAGED:
        return None


@dataclass(frozen=True)
class Pictures:
    """Pictures without features yet. names: N paths relative to `root`. identities: str [N], "" where unknown. layout:
    how the paths were read."""

    root: Path
    names: tuple[Path, ...]
    images: ImageSet
    identities: np.ndarray
    layout: FolderLayout

    def with_features(self, features: np.ndarray, info: dict) -> Features:
        """Attach features, float32 [N, C]. info: of a feature file, whose `images` and `tree` are filled in."""
        tree = {"tree": self.layout.as_json()} if self.layout.text else {}
        return Features(
            features,
            np.array([name.as_posix() for name in self.names]),
            np.array(MODALITIES)[self.images.infrared.astype(int)],
            self.identities,
            self.images.cameras,
            info | {"images": str(self.root)} | tree,
        )


@in_one_line()
def save_features(path: Path | str, content: Features) -> None:
    """Write a feature file, the same bytes for the same content. Raises InputError as `check_features`, `check_names`
    and `atomic_write` do."""
    path = as_path("path", path)
    require(path.suffix.lower() == ".npz", "path", str(path), "of a file whose name ends in .npz")
    check_features("content", content)
    check_names("content", content)
    write_archive(path, content, features=content.features)


def write_features(output: Path, content: Features) -> None:
    """Write features for other programs or, as `.npz`, for ours, by the output's suffix. Raises InputError as
    `atomic_write` does, and if the folder cannot be written.

    .csv: a row for each picture: path, modality, identity, camera, and its feature in the columns f0, f1, ...
    none: a folder with PICTURE.npy, float32 [C], for each picture.
    """
    if output.suffix.lower() == ".npz":
        save_features(output, content)
    elif output.suffix.lower() == ".csv":
        columns = ("path", "modality", "identity", "camera"), (f"f{i}" for i in range(content.features.shape[1]))
        about = zip(content.paths, content.modality, content.identities, content.cameras, strict=True)
        with atomic_write(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(chain(*columns))
            writer.writerows([*row, *map(str, feature)] for row, feature in zip(about, content.features, strict=True))
    else:
        with staged_folder(output) as folder:
            for path, feature in zip(content.paths.tolist(), content.features, strict=True):
                file = _feature_file(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, feature)


def check_feature_folder(output: Path, pictures: Iterable[Path]) -> None:
    """Raise InputError for pictures whose names are too long for files of a folder that `write_features` writes."""
    longest, longest_path = (os.pathconf(output.absolute().parent, f"PC_{kind}_MAX") for kind in ("NAME", "PATH"))
    folder = staging(output.absolute())
    files = ((picture, _feature_file(folder, str(picture))) for picture in pictures)
    refuse(
        (
            str(picture)
            for picture, file in files
            if len(os.fsencode(file.name)) > longest or len(os.fsencode(file)) >= longest_path
        ),
        f"--output {output}: pictures whose names are too long for files of a folder",
        "write a .npz or .csv file",
    )


def _feature_file(folder: Path, picture: str) -> Path:
    return folder / f"{picture}.npy"


def write_archive(path: Path, content: Features, **arrays: np.ndarray) -> None:
    """Write these arrays and all of `content` but its features. Raises InputError as `check_columns` and `atomic_write`
    do."""
    check_columns(path, content, len(content))
    columns = {name: getattr(content, name) for name in COLUMNS}
    info = np.array(json.dumps(content.info, sort_keys=True))
    with atomic_write(path) as temporary, ZipFile(temporary, "w") as archive:
        for name, array in (arrays | columns | {"info": info}).items():
            with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


@in_one_line()
def load_features(path: Path | str) -> Features:
    """Read and check a feature file. Raises InputError if it is missing, damaged or wrong."""
    path = as_path("path", path)
    members = read_archive(path, "a feature file", _MAKE)
    content = from_archive(path, members, members.get("features"))
    check_features(path, content)
    check_names(path, content)
    return content


def check_features(name: Path | str, content: Features) -> None:
    """Raise InputError unless there are features, finite and L2-normalised, and `check_columns` passes.

    name: for errors. (`check_names` takes twice as long and is for files alone.)
    """
    require(isinstance(content, Features), str(name), content, "features")
    features = content.features
    if not _is_array(features) or features.ndim != 2 or features.dtype != np.float32 or not features.size:
        raise InputError(f"{name}: features are {_kind(features)}; they must be float32 [N, C]")
    check_columns(name, content, len(features))
    if fault := first_fault(features):
        row, problem = fault
        raise InputError(f"{name}: row {row} ({content.paths[row]}) {problem}")


def check_columns(name: Path | str, content: Features, count: int) -> None:
    """Raise InputError unless `info` and the columns other than features, for `count` pictures, have the right types
    and version."""
    try:
        info = Info.model_validate(content.info)
        json.dumps(content.info, sort_keys=True)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "info"
        raise InputError(f"{name}: its info lacks a valid {where}; extract again") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: its info is not JSON ({error}); {_MAKE}") from None
    if info.format != FORMAT:
        raise InputError(f"{name}: has feature format {info.format}, but this version reads {FORMAT}; extract again")
    for column, kind in COLUMNS.items():
        values = getattr(content, column)
        if not _is_array(values) or values.shape != (count,) or values.dtype.kind != kind:
            raise InputError(f"{name}: {column} is {_kind(values)}; it must be [{count}]")


def check_names(name: Path | str, content: Features) -> None:
    """Raise InputError for names of pictures or people that cannot be printed, and for unknown modalities."""
    refuse_names([*content.paths.tolist(), *content.identities.tolist()], name)
    unknown = content.modality[~np.isin(content.modality, MODALITIES)]
    if len(unknown):
        raise InputError(f"{name}: modality {unknown[0].item()!r} is not one of {', '.join(MODALITIES)}")


def _is_array(value: object) -> bool:
    """Refuse NumPy's other subclasses, such as masked arrays, which compute differently."""
    return type(value) in (np.ndarray, np.memmap)


def _kind(value: object) -> str:
    return f"{value.dtype} {value.shape}" if _is_array(value) else f"a {type(value).__name__}"


def read_archive(path: Path, what: str, remedy: str) -> dict[str, np.ndarray | bytes]:
    """Read the members of an archive by name. Raises InputError if the file is missing, damaged or not `what`, or if
    memory does not suffice."""
    require_file(path, f"file; {remedy}")
    try:
        check_archive(path, _MOST_MEMBERS)
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except DAMAGED as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is not {what} ({why}); {remedy}") from None


def from_archive(path: Path, members: Mapping[str, np.ndarray | bytes], features: np.ndarray | None) -> Features:
    """Put features and an archive's other columns together, still to be checked. Raises InputError if `info` is missing
    or not JSON."""
    try:
        info = parse_json(str(members.get("info")))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: its info is not JSON; {_MAKE}") from None
    return Features(features, *map(members.get, COLUMNS), info)
