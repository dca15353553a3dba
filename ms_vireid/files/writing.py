"""The one way to write a file: whole, or not at all."""

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOLCK, EOPNOTSUPP
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, SoftFileLock, Timeout

from ms_vireid.command.errors import InputError
from ms_vireid.files.checks import sealed

_log = logging.getLogger(__name__)
TEMPORARY = ".*.tmp*"  # what a killed process leaves behind
_ZEROS = bytes(1 << 20)
_LONGEST_STEM = 40  # of a temporary name, which is longer than the file's own


def check_output(path: Path | None, option: str = "--output", suffixes: tuple[str, ...] = ()) -> None:
    """Raise InputError, before the work, unless a file of one of `suffixes` (none: any) can be written at `path`, or
    none is asked for."""
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{option} {path}: the file's name must end in {' or '.join(suffixes)}")
    require_folder(path, option)
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise InputError(f"{option} {path}: is {kind}; choose another name")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{option} {path}: its folder cannot be written; choose another one")


def require_folder(path: Path, option: str) -> None:
    """Raise InputError unless the folder of `path` is there."""
    if not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: its folder does not exist; make it first")


def make_folder(path: Path) -> None:
    """Make a folder and its parents unless they are there; raises InputError if it cannot."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror or error}); choose another --output") from None


@contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, to write to. At the end of the block what is there is synced
    and gets its name; if the block fails, it is removed, and what `path` held is untouched. Raises InputError if it
    cannot be written (a full disk, no permission, something other than a file is there)."""
    path = Path(path)
    name = f".{path.stem[:_LONGEST_STEM]}.{socket.gethostname()[:_LONGEST_STEM]}-"
    temporary = path.with_name(f"{name}{os.getpid()}.tmp{path.suffix}")
    _remove_left(path.parent, name, f".tmp{path.suffix}")
    try:
        if path.exists() and not path.is_file():
            raise OSError("something other than a file is there")
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user's other files; some libraries keep a file to its owner
        yield temporary
        temporary.chmod(mode)
        _sync(temporary)
        os.replace(temporary, path)
        if os.name != "nt":  # where a folder cannot be opened
            _sync(path.parent)
    except OSError as error:
        held = os.path.isfile(path)  # False where `path.is_file` would raise: a name that is too long
        kept = f"the earlier {path.name} is intact" if held else "nothing was written"
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); {kept}; free space or choose another place") from None
    finally:
        with suppress(OSError):  # what cannot be written may not be removed either
            temporary.unlink(missing_ok=True)


def _remove_left(folder: Path, name: str, end: str) -> None:
    """Remove what processes of this machine that were killed have left of the same file."""
    from psutil import pid_exists

    with suppress(OSError):  # of a folder that is not there, `whole` says more
        for left in [one for one in os.listdir(folder) if one.startswith(name) and one.endswith(end)]:
            number = left[len(name) : -len(end)]
            if number.isdecimal() and not pid_exists(int(number)):
                (folder / left).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Raises InputError as `whole` does."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: dict) -> None:
    """With a checksum, for `checks.read_json`; raises InputError as `whole` does."""
    write_text(path, json.dumps(sealed(content), indent=2) + "\n")


def reserve(path: Path, size: int) -> None:
    """A file of `size` zero bytes to be mapped: a process that writes to mapped memory for which the disk has no place
    is killed. Raises InputError if it cannot be written."""
    try:
        with path.open("wb") as file:
            for start in range(0, size, len(_ZEROS)):
                file.write(_ZEROS[: size - start])
    except OSError as error:
        raise InputError(_cannot(path, error, "the same command goes on")) from None


def append(path: Path, content: bytes) -> None:
    """Raises InputError if it cannot be written, and if something other than a file is there. Whoever reads the file
    skips an end that is cut off."""
    try:
        with open_to_append(path) as file:
            file.write(content)
    except OSError as error:
        raise InputError(_cannot(path, error, "the same command goes on")) from None


def open_to_append(path: Path) -> BinaryIO:
    """Raises OSError if something other than a file is there: a pipe would wait for a reader."""
    if path.exists() and not path.is_file():
        raise OSError("something other than a file is there")
    return path.open("ab")


def append_line(path: Path, line: str) -> None:
    """Raises InputError as `append` does."""
    append(path, f"{line}\n".encode())


def _cannot(path: Path, error: OSError, then: str) -> str:
    return f"{path}: cannot be written ({error.strerror or error}); free space, then {then}"


def lock(path: Path) -> FileLock:
    """A lock file that this process alone has until it ends, however it ends; raises InputError if another has it."""
    held = FileLock(path)
    try:
        held.acquire(timeout=0)
        if not isinstance(held, SoftFileLock):  # filelock's own way on systems without locks; it says who holds it
            path.write_text(f"process {os.getpid()} of {socket.gethostname()}", encoding="utf-8")
    except Timeout:
        holder = ""
        with suppress(OSError):  # Windows lets nobody read it
            holder = path.read_text(encoding="utf-8", errors="replace")[:100]
        where = f"{path.parent}: {holder or 'another process'} is at work there"
        raise InputError(f"{where}; choose another --output") from None
    except OSError as error:
        if error.errno not in (ENOLCK, EOPNOTSUPP):
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --output") from None
        _log.warning("note: %s is on a file system without locks; run one process there at a time", path.parent)
    return held
