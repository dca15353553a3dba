"""The one way in which a file is written: whole, or not at all."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EAGAIN, ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from ms_vireid.errors import InputError

TEMPORARY = ".*.tmp*"  # what a killed process leaves behind
_LONGEST_STEM = 40  # of a temporary name, which is longer than the file's own


def check_output(path: Path, option: str = "--output", suffixes: tuple[str, ...] = ()) -> None:
    """Raise InputError, before the work, unless a file of one of `suffixes` (none: any) can be written at `path`."""
    folder = path.absolute().parent
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{option} {path}: the file's name must end in {' or '.join(suffixes)}")
    if not folder.is_dir():
        raise InputError(f"{option} {path}: its folder does not exist; make it first")
    if path.exists() and not path.is_file():
        raise InputError(f"{option} {path}: is there and is no file; choose another name")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{option} {path}: its folder cannot be written; choose another one")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, to write to. At the end of the block what is there is synced
    and gets its name; if the block fails, it is removed, and what `path` held is untouched.

    Raises:
        InputError: it cannot be written (a full disk, no permission, something else than a file is there).
    """
    temporary = path.with_name(f".{path.stem[:_LONGEST_STEM]}.{os.getpid()}.tmp{path.suffix}")
    try:
        if path.exists() and not path.is_file():
            raise OSError("something is there that is no file")
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        kept = f"the earlier {path.name} is intact" if path.is_file() else "nothing was written"
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); {kept}; free space or choose another place") from None
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Raises InputError as `whole` does."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: dict) -> None:
    """Raises InputError as `whole` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for this process alone; the system takes the lock from a process that ends, however it ends.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (EACCES, EAGAIN):
                file.seek(0)
                holder = file.read(100)
                raise InputError(
                    f"{path.parent}: {holder or 'another process'} is working there; wait for it"
                ) from None
            if error.errno not in (ENOLCK, ENOSYS, EOPNOTSUPP):
                raise
            print(f"note: {path.parent} is on a file system without locks; run one process there at a time")
        file.truncate(0)
        file.write(f"process {os.getpid()} of {socket.gethostname()}")
        file.flush()
        yield
