"""Digests of files' whole content: files with equal ones are the same picture, whatever they are called."""

import hashlib
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np

from ms_vireid.data.pictures import MAX_BYTES

DIGEST = f"S{(_SIZE := 6)}"  # of a million pictures one in 280 million others then looks like one of them
_END = 1 << 16  # bytes at either end of a file, by which an earlier version told larger ones apart
_PIECE = 1 << 20
_CHUNK = 64  # files for a thread at a time
_KEPT = 1 << 17  # digests
_SETTLED_NS = 2 * 10**9  # after a file's last change; until then a clock may be too coarse to show the next one


def digests(paths: Sequence[Path]) -> np.ndarray:
    """Digest the whole content of files, `DIGEST` [N]. Empty for what is no regular file, cannot be read, or is too
    large for a picture."""
    if len(paths) <= _CHUNK:
        return np.array(_all(paths), DIGEST)
    pieces = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor() as pool:
        return np.array([one for piece in pool.map(_all, pieces) for one in piece], DIGEST)


def _all(paths: Sequence[Path]) -> list[bytes]:
    return [digest(path) for path in paths]


def digests_by_ends(paths: Sequence[Path]) -> np.ndarray:
    """Digest files as an earlier version did: of a large one, only both ends and the size. Empty for smaller ones,
    which it read whole."""
    return np.array([_digest(path, by_ends=True) if _size(path) > 2 * _END else b"" for path in paths], DIGEST)


def digest(path: Path) -> bytes:
    """Digest one file, as `digests`. It is read once in a process, unless it has changed or is about to: another
    content under the same inode, size and times of change is one that was written within a clock's tick."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_BYTES:
            return b""
        key = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
        is_settled = time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > _SETTLED_NS
        return _kept(path, key) if is_settled else _digest(path)
    except OSError:
        return b""


@lru_cache(_KEPT)
def _kept(path: Path, _key: tuple) -> bytes:
    return _digest(path)


def _digest(path: Path, by_ends: bool = False) -> bytes:
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        content = hashlib.blake2b(digest_size=_SIZE, salt=size.to_bytes(8, "little"))
        if by_ends:
            content.update(file.read(_END))
            file.seek(size - _END)
        while piece := file.read(_PIECE):
            content.update(piece)
    return content.digest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
