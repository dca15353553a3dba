"""Atomic writes, which replace nothing but a plain file."""

import json
import logging
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EBADF, EINVAL, EISDIR, ENAMETOOLONG, ENOSYS, ENOTSUP, ENOTTY, EOPNOTSUPP, EPERM
from functools import cache
from pathlib import Path
from shutil import rmtree
from zlib import crc32

from filelock import FileLock, SoftFileLock, Timeout
from psutil import pid_exists

from ms_vireid.command.errors import InputError, one_line
from ms_vireid.files.checks import sealed

_log = logging.getLogger(__name__)
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.ms_vireid-.*-\d{1,9}\.tmp(\..*)?", re.DOTALL)  # as `_temporary_name`
_HOLDER = re.compile(rb"process \d+ of .*|\d+\n.*", re.DOTALL)  # content of a lock file: an earlier version's, or ours
# How a file system that lacks an operation refuses it, as network shares and FUSE do. Other errors are faults.
_UNSUPPORTED = (EACCES, EBADF, EINVAL, EISDIR, ENOSYS, ENOTSUP, ENOTTY, EOPNOTSUPP, EPERM)
FOLDER = "is a folder"
_ANOTHER_PLACE = "free space or choose another place"
_ZEROS = bytes(1 << 20)
_MAX_STEM = 40  # bytes of the file's name in its temporary name


def check_output(
    path: Path | None,
    option: str = "--output",
    suffixes: tuple[str, ...] = (),
    reads: Iterable[Path | str | None] = (),
    beside: str = "",
) -> None:
    """Check, before the work begins, that `path` can be written. None means that no output was asked for.

    suffixes: allowed endings; empty allows any. reads: files and folders that the command reads, as for
    `check_outside`. beside: the ending of what is written beside it on the way. Raises InputError.
    """
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{option} {path}: the file's name must end in {' or '.join(suffixes)}")
    require_folder(path, option)
    if problem := obstacle(path) or _too_long(path, beside):
        raise InputError(f"{option} {path}: {problem}; choose another name")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{option} {path}: its folder is not writable; choose another one")
    check_outside(path, option, reads)


def _too_long(path: Path, beside: str) -> str | None:
    """Return that the file system takes no name so long, for `path`, what is written beside it or its temporary file;
    None if it takes them."""
    for name in (path.name, path.name + beside, _temporary_name(path)):
        try:
            os.lstat(path.with_name(name))
        except OSError as error:
            if error.errno == ENAMETOOLONG:
                return f"its name is too long ({len(os.fsencode(path.name))} bytes)"
    return None


def check_outside(path: Path, option: str, reads: Iterable[Path | str | None]) -> None:
    """Raise InputError if the output `path` is one of the files in `reads`, or lies in one of its folders; None entries
    are skipped."""
    output = Path(os.path.realpath(path))
    output_and_parents = {_identity(place) or str(place) for place in (output, *output.parents)}
    for read in reads:
        if read is not None and (_identity(read) or os.path.realpath(read)) in output_and_parents:
            where = "is or lies in" if os.path.isdir(read) else "is"
            raise InputError(f"{option} {path}: {where} {read}, which this command reads; choose another place")


def _identity(path: Path | str) -> tuple[int, int] | None:
    """Return the device and inode, which are the same under every name; None if nothing is there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def check_derived(path: Path, mark: bytes, remedy: str) -> None:
    """Check an output whose name no option gave: raise InputError if something is at `path`, unless it is a file that
    contains `mark`, as this command's files do."""
    if os.path.lexists(path) and (obstacle(path) or not _contains(path, mark)):
        raise InputError(f"{path}: already exists but was not written by this command; {remedy}")


def _contains(path: Path, mark: bytes) -> bool:
    before = b""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            if mark in before + piece:
                return True
            before = piece[-len(mark) :]
    return False


def obstacle(path: Path) -> str | None:
    """Return why `path` must not be written, in words; None if nothing or a writable file is there."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # nothing is there, or the name is impossible, which writing reports
        return None
    if stat.S_ISLNK(mode):
        return "is a link"
    if stat.S_ISDIR(mode):
        return FOLDER
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    return None if mode & 0o222 else "is read-only"


def require_folder(path: Path, option: str) -> None:
    """Raise InputError unless the folder of `path` exists."""
    if not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: its folder does not exist; make it first")


def make_folder(path: Path) -> None:
    """Make a folder and its parents unless they exist; raises InputError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be created ({error.strerror or error}); choose another --output") from None


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix, to write to.

    At the end of the block the file is synced and renamed to `path`, and the folder is synced. If the block fails, it
    is removed, and what was at `path` stays. A file system that refuses to sync or to set permissions gets a note.
    Raises InputError, which says which file is there, if it cannot be written: the disk is full, permission is missing,
    or `path` is a link, a folder or a read-only file.
    """
    path = Path(path)
    temporary, replaced = path.with_name(_temporary_name(path)), False
    _remove_leftovers(path)
    try:
        if problem := obstacle(path):
            raise OSError(f"it {problem}")
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # the user's default; some libraries restrict a file to its owner
        yield temporary
        with _if_supported(path.parent, "that sets no permissions"):
            os.chmod(temporary, mode)
        _sync(temporary, path.parent)
        os.replace(temporary, path)
        replaced = True
        if os.name != "nt":  # Windows cannot open a folder
            _sync(path.parent, path.parent)
    except OSError as error:
        if replaced:
            problem = f"the new file is there, but its folder cannot be synced ({error.strerror}) and may lose it"
            raise InputError(f"{path}: {problem}; {_ANOTHER_PLACE}") from None
        # os.path.isfile is False for a name that is too long, where Path.is_file raises.
        kept = f"the earlier {path.name} is intact" if os.path.isfile(path) else "nothing was written"
        raise _unwritable(path, error, f"{kept}; {_ANOTHER_PLACE}") from None
    finally:
        with suppress(OSError):  # what cannot be written perhaps cannot be removed either
            temporary.unlink(missing_ok=True)


def staging(path: Path) -> Path:
    """Where `staged_folder` lets `path` be filled: a folder beside it, which is this process's."""
    return path.with_name(_temporary_name(path.with_suffix("")))


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, on the same file system, which is renamed to `path` at the end of the block.

    Its parents are made. If the block fails, it is removed, and what was at `path` stays. Raises InputError if it
    cannot be written, or if anything but an empty folder is at `path`.
    """
    folder = staging(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.with_suffix(""))
        folder.mkdir()
    except OSError as error:
        raise _unwritable(path, error, _ANOTHER_PLACE) from None
    try:
        yield folder
        folder.rename(path)
    except OSError as error:
        raise _unwritable(path, error, _ANOTHER_PLACE) from None
    finally:
        rmtree(folder, ignore_errors=True)


def _temporary_name(path: Path, process: str = "") -> str:
    """Return a name that is unique to this file, machine and process (default: this one)."""
    stem = os.fsencode(path.stem)[:_MAX_STEM].decode(errors="ignore")
    file, host = f"{stem}.{crc32(os.fsencode(path.name)):08x}", socket.gethostname()[:_MAX_STEM]
    return f".{file}.ms_vireid-{host}-{process or os.getpid()}.tmp{path.suffix}"


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left of `path`, also one that had this process's number."""
    names = re.compile("([0-9]{1,9})".join(map(re.escape, _temporary_name(path, "\0").split("\0"))))
    with suppress(OSError):  # what cannot be read or removed is reported by the caller
        for match in filter(None, map(names.fullmatch, os.listdir(path.parent))):
            process, left = int(match[1]), path.with_name(match[0])
            if process == os.getpid() or not pid_exists(process):
                rmtree(left) if stat.S_ISDIR(os.lstat(left).st_mode) else left.unlink(missing_ok=True)


def _sync(path: Path, folder: Path) -> None:
    with _if_supported(folder, "that does not sync: a power loss may undo what is written"):
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _if_supported(folder: Path, lack: str) -> Iterator[None]:
    """Run a block that the file system of `folder` may refuse; a note then says once what it lacks. Raises OSError for
    any other failure."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _note(f"note: {folder} is on a file system {lack} ({error.strerror})")


@cache  # once
def _note(text: str) -> None:
    _log.warning("%s", one_line(text))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; raises InputError as `atomic_write` does."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: dict) -> None:
    """Write JSON with a checksum, for `checks.read_json`; raises InputError as `atomic_write` does."""
    write_text(path, json.dumps(sealed(content), indent=2) + "\n")


def reserve(path: Path, size: int) -> None:
    """Write `size` zero bytes for `write_rows`, so that a full disk shows before the work. Raises InputError if they
    cannot be written."""
    try:
        with path.open("wb") as file:
            for start in range(0, size, len(_ZEROS)):
                file.write(_ZEROS[: size - start])
    except OSError as error:
        raise _unwritable(path, error, "free space, then run it again to continue") from None


def write_rows(path: Path, places: Iterable[int], rows: Iterable[memoryview]) -> None:
    """Write rows (of an array, for example) at their places in a file, and sync it. Raises InputError if it cannot be
    written."""
    try:
        with path.open("r+b") as file:
            for place, row in zip(places, rows, strict=True):
                file.seek(int(place) * row.nbytes)
                file.write(row)
        _sync(path, path.parent)
    except OSError as error:
        raise _unwritable(path, error, "free space, then run it again to continue") from None


def append(path: Path, content: bytes) -> None:
    """Append to a file, without syncing: readers skip an incomplete end. Raises InputError if it cannot be written, or
    if something other than a file is there."""
    try:
        if problem := obstacle(path):  # a pipe would wait for a reader
            raise OSError(f"it {problem}")
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        raise _unwritable(path, error, "free space, then run it again to continue") from None


def append_line(path: Path, line: str) -> None:
    """Append a line of text; raises InputError as `append` does."""
    append(path, f"{line}\n".encode())


def _unwritable(path: Path, error: OSError, remedy: str) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


def lock(path: Path) -> FileLock | SoftFileLock:
    """Take a lock file, which is released when this process ends, however it ends. On a file system without locks the
    file itself is the lock, and what a killed process of this machine left is taken over. Raises InputError if another
    process has it, if something else is at `path`, or if it cannot be written."""
    try:
        if problem := obstacle(path):
            raise InputError(f"{path}: {problem}; choose another --output")
        # Windows denies permission while another process has it.
        with suppress(FileNotFoundError, PermissionError), path.open("rb") as file:
            if (content := file.read(200)) and not _HOLDER.fullmatch(content):
                raise InputError(f"{path}: already exists but is not a run's lock; choose another --output")
        has_locks = _has_locks(path)
        file_lock = FileLock(path) if has_locks else SoftFileLock(path)
        file_lock.acquire(timeout=0 if has_locks else 0.5)  # seconds: it tries once more after a killed process's
        if has_locks:  # as SoftFileLock writes it, which may find it later in a copy of the folder
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
        else:
            _note(f"note: {path.parent} is on a file system without locks; run one process there at a time")
    except Timeout:
        unless = "" if has_locks else f", or remove {path} if nobody is"
        raise InputError(f"{path.parent}: {_holder(path)} is using it; choose another --output{unless}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --output") from None
    return file_lock


def _has_locks(path: Path) -> bool:
    """Whether a new file beside `path`, which no other process knows, can be locked. Raises OSError without one."""
    _remove_leftovers(path)
    probe = path.with_name(_temporary_name(path))
    probe.touch()
    try:
        with FileLock(probe, timeout=0, fallback_to_soft=False):
            return True
    except OSError:  # also Timeout: some file systems refuse as if another process had it
        return False
    finally:
        probe.unlink(missing_ok=True)


def _holder(path: Path) -> str:
    content = ""
    with suppress(OSError):  # Windows lets nobody read it while it is locked
        content = path.read_text(encoding="utf-8", errors="replace")[:100]
    process, *host = content.splitlines() or ["another process"]
    return f"process {process} of {host[0]}" if host else process
