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

_SIZE = 6  # bytes; of a million pictures one in 280 million others then looks like one of them
DIGEST = f"S{_SIZE}"
_END = 1 << 16  # bytes at either end of a file, by which an earlier version told larger ones apart
_PIECE = 1 << 20
_CHUNK = 64  # files for a thread at a time
_KEPT = 1 << 17  # digests
_SETTLED_NS = 2 * 10**9  # after a file's last change; until then a clock may be too coarse to show the next one


def digests(paths: Sequence[Path], by_ends: bool = False) -> np.ndarray:
    """Digest the whole content of files, `DIGEST` [N]. Empty for what is no regular file, cannot be read, or is too
    large for a picture. by_ends: of the ends alone, as an earlier version did; empty for files that it read whole."""
    pieces = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor() as pool:
        done = pool.map(lambda piece: [digest(path, by_ends) for path in piece], pieces)
        return np.array([one for piece in done for one in piece], DIGEST)


def digest(path: Path, by_ends: bool = False) -> bytes:
    """Digest one file, as `digests`. A process reads it once, unless its place on the disk, size or times have changed,
    or have changed so lately that another change would not show."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_BYTES or (by_ends and about.st_size <= 2 * _END):
            return b""
        key = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
        is_settled = time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > _SETTLED_NS
        return _kept(path, by_ends, key) if is_settled else _digest(path, by_ends)
    except OSError:
        return b""


@lru_cache(_KEPT)
def _kept(path: Path, by_ends: bool, _key: tuple) -> bytes:
    return _digest(path, by_ends)


def _digest(path: Path, by_ends: bool) -> bytes:
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        content = hashlib.blake2b(digest_size=_SIZE, salt=size.to_bytes(8, "little"))
        if by_ends:
            content.update(file.read(_END))
            file.seek(size - _END)
        while piece := file.read(_PIECE):
            content.update(piece)
    return content.digest()
