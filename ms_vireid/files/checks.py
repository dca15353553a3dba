"""Checks that a file passes before its content is used."""

import codecs
import hashlib
import io
import json
import logging
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from ms_vireid.command.errors import InputError, one_line, printable
from ms_vireid.command.memory import require_memory

if TYPE_CHECKING:
    from pydantic import BaseModel

MAX_NAME_LENGTH = 500  # characters
MAX_JSON_BYTES = 1 << 26  # the extraction state of a million pictures is smaller
_JSON_VALUES, _BYTES_A_VALUE = 1 << 17, 64  # of a JSON text, whichever allows more: a value may take 100 bytes
MAX_MEMBERS = 10_000  # of an archive, in which PyTorch writes one per tensor, and arrays of any file
_MAX_DIRECTORY_BYTES = 1 << 22  # of an archive's list of members
_GROWTH, _SMALL_BYTES = 4, 1 << 26  # times a file's size that its content may take; it may always take this much
# What reading a damaged archive or array raises.
DAMAGED = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
Schema = TypeVar("Schema", bound="BaseModel")
SEAL = "content_checksum"
_log = logging.getLogger(__name__)


def note(about: Path | str, line: str) -> None:
    """Log a line about a file, or about what a message begins with."""
    _log.warning("%s", one_line(f"note: {about}: {line}"))


def require_file(path: Path, what: str, max_bytes: int | None = None) -> None:
    """Raise InputError unless `path` is a regular file of at most `max_bytes`: reading a pipe would block, and some
    devices never end."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a {what}")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file; give a {what}")
    if not path.is_file():
        raise InputError(f"{path}: no such {what}")
    if max_bytes is not None and (size := path.stat().st_size) > max_bytes:
        raise InputError(f"{path}: is too large ({size:,} bytes; at most {max_bytes:,}); give another {what}")


def open_file(path: Path, what: str, max_bytes: int) -> BinaryIO:
    """Open a file for reading; raises InputError as `require_file` does."""
    require_file(path, what, max_bytes)
    return path.open("rb")


def read_bytes(path: Path, what: str, max_bytes: int) -> bytes:
    """Read a whole file; raises InputError as `require_file` does."""
    with open_file(path, what, max_bytes) as file:
        return file.read(max_bytes + 1)


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a regular file's content."""
    require_file(path, "file")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def read_text(path: Path, what: str, max_bytes: int) -> str:
    """Read a text file: UTF-8, or UTF-16 with a byte-order mark, as Windows' shell writes it. Raises InputError as
    `require_file` does, and OSError or UnicodeDecodeError if it cannot be read."""
    content = read_bytes(path, what, max_bytes)
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")


class _Directory(io.FileIO):
    """An archive's file while zipfile reads its list of members, which it does in one piece however long it is."""

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("it has too many members")
        return super().read(size)


def open_archive(path: Path, max_members: int = MAX_MEMBERS) -> zipfile.ZipFile:
    """Open a zip archive. Raises InputError as `require_file` does, and BadZipFile for anything else or for more than
    `max_members`: zipfile needs minutes for a few hundred thousand."""
    require_file(path, "file")
    with _Directory(path) as file, zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > max_members:
            raise zipfile.BadZipFile(f"it has {len(archive.infolist()):,} members")
    return zipfile.ZipFile(path)


def check_count(count: int) -> None:
    """Raise ValueError if a file of weights holds too many arrays: each takes far longer than its bytes."""
    if count > MAX_MEMBERS:
        raise ValueError(f"more than {MAX_MEMBERS:,} arrays")


def check_growth(path: Path, size: int, remedy: str) -> None:
    """Raise InputError if what a file holds, `size` bytes, is far more than the file, or than memory."""
    if size > max(_GROWTH * path.stat().st_size, _SMALL_BYTES):
        raise InputError(f"{path}: would take {size:,} bytes of memory, far more than the file has; {remedy}")
    require_memory(size, f"{path}: reading it", "use another copy, or a machine with more memory")


def check_archive(path: Path, max_members: int) -> None:
    """Check an archive of arrays before reading any: the number of members, the memory that they need, how tightly they
    are compressed, and their checksums. Raises InputError, or one of DAMAGED for a file that is damaged or no archive.
    """
    with open_archive(path, max_members) as archive:
        members = archive.infolist()
        sizes = {member.filename: member.file_size for member in members}
        if len(sizes) < len(members):
            raise ValueError("a member is repeated")
        check_growth(path, sum(sizes.values()), "use another copy, or save it unpacked")
        if broken := archive.testzip():
            raise ValueError(f"{broken} is damaged")


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raise InputError for a name that is empty, far too long or not printable."""
    for name in names:
        if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
            raise InputError(f"{path}: contains a name of {len(name)} characters, {name[:40]!r}; use another copy")


def require_utf8(*paths: Path) -> None:
    """Raise InputError for a path that is not UTF-8: no feature file or index could name it."""
    for path in paths:
        if str(path).encode(errors="ignore").decode() != str(path):
            raise InputError(f"{path}: is not UTF-8; rename it")


def require_folder_name(name: str, source: Path | str) -> str:
    """Return `name` if it can name a folder; raises InputError if it leads elsewhere or cannot be printed. source:
    where the user gave it."""
    if not name.strip(".") or set(name) & {"/", "\\"} or printable(name) != name:
        raise InputError(f"{source}: does not give a valid folder name ({name!r}); rename it")
    return name


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Add a checksum to plain values, by which `unsealed` detects damage when they are read back as JSON."""
    as_read = json.loads(json.dumps(content))  # keys become strings
    return as_read | {SEAL: _checksum(as_read)}


def unsealed(tree: Any) -> Any:
    """Remove the checksum that `sealed` added, if there is one; raises ValueError if it does not match."""
    if not isinstance(tree, dict) or SEAL not in tree:
        return tree
    content = {key: value for key, value in tree.items() if key != SEAL}
    if tree[SEAL] != _checksum(content):
        raise ValueError("its checksum differs: it was damaged or changed")
    return content


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; raises ValueError, also for far more values than this project writes, and RecursionError."""
    text = text.decode() if isinstance(text, bytes) else text
    if sum(map(text.count, ",[{")) > max(_JSON_VALUES, len(text) // _BYTES_A_VALUE):
        raise ValueError("too many values for its size")
    return json.loads(text)


def read_json(
    path: Path, schema: type[Schema], writer: str = "train.py", remedy: str = "give an intact run folder"
) -> Schema:
    """Read a JSON file that a command of this project, `writer`, wrote; raises InputError if it is missing, damaged or
    does not fit the schema."""
    from pydantic import ValidationError  # here, so that --help stays fast: every command imports this module

    try:
        return schema.model_validate(unsealed(parse_json(read_bytes(path, "file", MAX_JSON_BYTES))))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        reason = f"{where}: {problem['msg']}" if where else problem["msg"]
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise InputError(f"{path}: is not what {writer} writes ({reason}); {remedy}")
