"""The checks of every file before its content is believed."""

import hashlib
import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from ms_vireid.command.errors import InputError, printable
from ms_vireid.devices.memory import require_memory

if TYPE_CHECKING:
    from pydantic import BaseModel

LONGEST_NAME = 500  # characters
MOST_JSON = 1 << 26  # bytes; a state of a million pictures has less
MOST_MEMBERS = 10_000  # of an archive; PyTorch's has one for each tensor
_LONGEST_DIRECTORY = 1 << 22  # bytes of an archive's list of members
_TIGHTEST, _SMALL = 100, 1 << 26  # an archive's members over its own size; bytes below which that does not matter
# What reading a damaged archive or array raises.
DAMAGED = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
Schema = TypeVar("Schema", bound="BaseModel")
SEAL = "content_checksum"


def require_file(path: Path, what: str, most: int | None = None) -> None:
    """Raise InputError unless `path` is a regular file, of at most so many bytes: reading a pipe would block, and some
    devices have no end."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a {what}")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file; give a {what}")
    if not path.is_file():
        raise InputError(f"{path}: no such {what}")
    if most is not None and (size := path.stat().st_size) > most:
        raise InputError(f"{path}: is too large ({size:,} bytes of at most {most:,}); give another {what}")


def open_file(path: Path, what: str, most: int) -> BinaryIO:
    """The one way to open what this project reads by itself; raises InputError as `require_file` does."""
    require_file(path, what, most)
    return path.open("rb")


def read_bytes(path: Path, what: str, most: int) -> bytes:
    """Raises InputError as `require_file` does."""
    with open_file(path, what, most) as file:
        return file.read(most + 1)


def file_checksum(path: Path) -> str:
    """The SHA-256 of a regular file's content."""
    require_file(path, "file")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class _Directory(io.FileIO):
    """An archive's file while its list of members is read, which zipfile takes in one piece, however long."""

    def read(self, size: int = -1) -> bytes:
        if size > _LONGEST_DIRECTORY:
            raise zipfile.BadZipFile("it has too many members")
        return super().read(size)


def open_archive(path: Path, most: int = MOST_MEMBERS) -> zipfile.ZipFile:
    """Raises InputError as `require_file` does, and BadZipFile for what is no archive or has more members than
    `most`: zipfile needs minutes for some hundred thousand."""
    require_file(path, "file")
    with _Directory(path) as file, zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > most:
            raise zipfile.BadZipFile(f"it has {len(archive.infolist()):,} members")
    return zipfile.ZipFile(path)


def check_archive(path: Path, most: int) -> None:
    """Check an archive of arrays before one is read: it has at most so many members, fits into the memory, is not
    packed more tightly than arrays are, and its members are whole. Raises InputError, or one of DAMAGED where it is not
    an archive, or not a whole one.
    """
    with open_archive(path, most) as archive:
        members = archive.infolist()
        sizes = {member.filename: member.file_size for member in members}
        if len(sizes) < len(members):
            raise ValueError("a member is there twice")
        if sum(sizes.values()) > max(_TIGHTEST * path.stat().st_size, _SMALL):
            raise ValueError("it is packed too tightly")
        require_memory(sum(sizes.values()), f"{path}: reading it", "use another copy, or a machine with more memory")
        if broken := archive.testzip():
            raise ValueError(f"{broken} is damaged")


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raise InputError for a name that is empty, far too long, or could not be printed as it is."""
    for name in names:
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise InputError(f"{path}: a name in it is {name[:40]!r} ({len(name)} characters); use another copy")


def require_folder_name(name: str, source: Path | str) -> str:
    """A user's text, of `source`, as the name of a folder; raises InputError if it leads elsewhere, or cannot be
    printed."""
    if not name.strip(".") or set(name) & {"/", "\\"} or printable(name) != name:
        raise InputError(f"{source}: makes no name of a folder ({name!r}); give it another name")
    return name


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Plain values with their checksum, for `unsealed` to find damage when they are read back as JSON."""
    as_read = json.loads(json.dumps(content))  # where keys are texts
    return as_read | {SEAL: _checksum(as_read)}


def unsealed(tree: Any) -> Any:
    """What `sealed` was given, or a tree without a checksum as it is; raises ValueError if the checksum differs."""
    if not isinstance(tree, dict) or SEAL not in tree:
        return tree
    content = {key: value for key, value in tree.items() if key != SEAL}
    if tree[SEAL] != _checksum(content):
        raise ValueError("its checksum differs: it was damaged or changed")
    return content


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_json(path: Path, schema: type[Schema]) -> Schema:
    """A JSON file that this project wrote; raises InputError if it is not there, is not as it was written, or does not
    fit the schema."""
    from pydantic import ValidationError  # only now: commands whose line is read import this module

    try:
        return schema.model_validate(unsealed(json.loads(read_bytes(path, "file", MOST_JSON))))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        reason = f"{where}: {problem['msg']}" if where else problem["msg"]
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise InputError(f"{path}: is not what train.py writes ({reason}); give an intact run folder")
