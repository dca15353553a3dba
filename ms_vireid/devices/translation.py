"""Announces slow starts on a GPU for which MindSpore ships no machine code: before the first kernel runs, the driver
silently compiles all of MindSpore's kernels, and keeps them in its own cache."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ms_vireid.command.errors import printable
from ms_vireid.command.printing import say

MODULES = 407  # in MindSpore 2.10's libcuda_ops; each becomes a file in the cache
SIZE = 361_000_000  # total bytes, on an H100 with driver 580.159
MEASURED = "195 s on an H100 beside a Xeon"
POLL_S = 0.2
LONG_S = 10.0  # a start that finds all of them is faster


@contextmanager
def announced(environment: Mapping[str, str]) -> Iterator[None]:
    """Wrap the block in which the device's first kernel runs. If the driver compiles, a line on stderr says so, with a
    progress bar on a terminal. If everything is in the cache, nothing is printed.

    With fewer files than there are modules, the cache is known to be incomplete. With more, some may belong to other
    programs: the line is printed when the cache grows or, as a read-only cache never does, after `LONG_S`.
    """
    cache, ended = _Cache(environment), threading.Event()
    before = cache.count_files()
    if incomplete := before < MODULES:
        cache.announce()
    watch = threading.Thread(target=_watch, args=(cache, before, incomplete, ended))
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(cache: "_Cache", before: int, announced: bool, ended: threading.Event) -> None:
    from ms_vireid.command.progress import progress  # here, as it imports tqdm, which few starts need

    started_at = time.monotonic()
    while not announced:
        if ended.wait(POLL_S):
            return
        if announced := cache.count_files() > before or time.monotonic() - started_at > LONG_S:
            cache.announce()
    for _ in progress(_new_files(cache, before, ended), MODULES, "translating", " modules"):
        pass


def _new_files(cache: "_Cache", before: int, ended: threading.Event) -> Iterator[int]:
    while not ended.wait(POLL_S):
        count = cache.count_files()
        yield from range(before, count)
        before = max(before, count)


class _Cache:
    """The driver's cache of compiled kernels."""

    def __init__(self, environment: Mapping[str, str]):
        self.environment = environment
        chosen, home = environment.get("CUDA_CACHE_PATH"), environment.get("HOME")
        default = Path(home, ".nv", "ComputeCache") if home else None
        self.folder = Path(chosen) if chosen else default

    def count_files(self) -> int:
        return sum(len(files) for *_, files in os.walk(self.folder)) if self.folder else 0

    def announce(self) -> None:
        what = f"the driver translates MindSpore's {MODULES} modules of kernels for this GPU ({MEASURED})"
        if hindrance := self.hindrance():
            how_often = f"{hindrance}, so that every start takes as long"
        else:
            where = f"{printable(str(self.folder))}, {SIZE // 10**6} MB"
            how_often = f"it keeps them in {where}: this happens once for this MindSpore, GPU and driver"
        say(f"note: {what}; {how_often}", error=True)

    def hindrance(self) -> str | None:
        """Return why the driver cannot keep compiled kernels, or None."""
        if (disabled := self.environment.get("CUDA_CACHE_DISABLE", "")) not in ("", "0"):
            return f"CUDA_CACHE_DISABLE={printable(disabled)} has it keep nothing"
        if (limit := self.environment.get("CUDA_CACHE_MAXSIZE", "")).isdecimal() and int(limit) < SIZE:
            return f"CUDA_CACHE_MAXSIZE={limit} is too small for their {SIZE} bytes"
        if self.folder is None:
            return "it has no folder to keep them in (CUDA_CACHE_PATH names one)"
        existing = next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists())
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            return None
        return f"{printable(str(self.folder))} cannot be written to keep them (CUDA_CACHE_PATH names another folder)"
