"""The one way to write a file: whole, or not at all, and in the place of nothing but a plain file."""

import json
import logging
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import ENOLCK, EOPNOTSUPP
from pathlib import Path
from zlib import crc32

from filelock import FileLock, SoftFileLock, Timeout
from psutil import pid_exists

from ms_vireid.command.errors import InputError, one_line
from ms_vireid.files.checks import sealed

_log = logging.getLogger(__name__)
# What a killed process leaves behind: of which file, host and process.
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.ms_vireid-(?P<host>.*)-(?P<process>\d{1,9})\.tmp(\..*)?", re.DOTALL)
_HOLDER = re.compile(rb"process \d+ of .*|\d+\n.*", re.DOTALL)  # in a lock: by `lock`, or filelock itself
FOLDER = "is a folder"
_ZEROS = bytes(1 << 20)
_LONGEST_STEM = 40  # of a temporary name, which is longer than the file's own


def check_output(
    path: Path | None, option: str = "--output", suffixes: tuple[str, ...] = (), reads: Iterable[Path | str | None] = ()
) -> None:
    """Raise InputError, before the work, unless a file of one of `suffixes` (none: any) can be written at `path`, or
    none is asked for. reads: the files and folders that the command reads, as in `check_apart`."""
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{option} {path}: the file's name must end in {' or '.join(suffixes)}")
    require_folder(path, option)
    if problem := obstacle(path):
        raise InputError(f"{option} {path}: {problem}; choose another name")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{option} {path}: its folder cannot be written; choose another one")
    check_apart(path, option, reads)


def check_apart(path: Path, option: str, reads: Iterable[Path | str | None]) -> None:
    """Raise InputError if `path`, which is to be written, is one of the files that the command reads, or is or lies in
    one of the folders. None is passed over."""
    place = Path(os.path.realpath(path))
    above = {_identity(one) or str(one) for one in (place, *place.parents)}
    for read in reads:
        if read is not None and (_identity(read) or os.path.realpath(read)) in above:
            where = "is or lies in" if os.path.isdir(read) else "is"
            raise InputError(f"{option} {path}: {where} {read}, which is read; choose another place")


def _identity(path: Path | str) -> tuple[int, int] | None:
    """What tells a file or folder from all others, whatever its name; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def check_derived(path: Path, mark: bytes, remedy: str) -> None:
    """Raise InputError for something at `path`, a name that no option gave, unless it is a file with the mark that this
    command's have."""
    if os.path.lexists(path) and (obstacle(path) or not _holds(path, mark)):
        raise InputError(f"{path}: is there, and was not written by this command; {remedy}")


def _holds(path: Path, mark: bytes) -> bool:
    before = b""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            if mark in before + piece:
                return True
            before = piece[-len(mark) :]
    return False


def obstacle(path: Path) -> str | None:
    """What is at `path` that a file of ours must not replace; None for nothing, or a file that may be written."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # nothing, or a name that cannot be, of which writing says more
        return None
    if stat.S_ISLNK(mode):
        return "is a link"
    if stat.S_ISDIR(mode):
        return FOLDER
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    return None if mode & 0o222 else "is read-only"


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
    cannot be written (a full disk, no permission, a link, a folder or a read-only file is there)."""
    path = Path(path)
    temporary = path.with_name(_temporary_name(path))
    remove_left(path.parent)
    try:
        if problem := obstacle(path):
            raise OSError(f"it {problem}")
        temporary.unlink(missing_ok=True)  # of an earlier process of this number, in a container for example
        temporary.touch(exist_ok=False)
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


def _temporary_name(path: Path) -> str:
    """A name of this process's alone, another for each file."""
    which = f"{path.stem[:_LONGEST_STEM]}.{crc32(os.fsencode(path.name)):08x}"
    return f".{which}.ms_vireid-{_host()}-{os.getpid()}.tmp{path.suffix}"


def _host() -> str:
    return socket.gethostname()[:_LONGEST_STEM]


def remove_left(folder: Path) -> None:
    """Remove what `whole` left in a folder in processes of this machine that were killed."""
    with suppress(OSError):  # of a folder that is not there, `whole` says more
        for name in os.listdir(folder):
            found = TEMPORARY.fullmatch(name)
            ended = found and found["host"] == _host() and not pid_exists(int(found["process"]))
            if ended and stat.S_ISREG(os.lstat(folder / name).st_mode):
                (folder / name).unlink(missing_ok=True)


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
        if problem := obstacle(path):  # a pipe would wait for a reader
            raise OSError(f"it {problem}")
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        raise InputError(_cannot(path, error, "the same command goes on")) from None


def append_line(path: Path, line: str) -> None:
    """Raises InputError as `append` does."""
    append(path, f"{line}\n".encode())


def _cannot(path: Path, error: OSError, then: str) -> str:
    return f"{path}: cannot be written ({error.strerror or error}); free space, then {then}"


def lock(path: Path) -> FileLock:
    """A lock file that this process alone has until it ends, however it ends; raises InputError if another has it, or
    something else has its name."""
    held = FileLock(path)
    try:
        if problem := obstacle(path):
            raise InputError(f"{path}: {problem}; choose another --output")
        with suppress(FileNotFoundError, PermissionError), path.open("rb") as file:  # Windows: another has it
            if (content := file.read(200)) and not _HOLDER.fullmatch(content):
                raise InputError(f"{path}: is there, and is no lock of a run; choose another --output")
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
        _log.warning(
            "%s", one_line(f"note: {path.parent} is on a file system without locks; run one process there at a time")
        )
    return held
