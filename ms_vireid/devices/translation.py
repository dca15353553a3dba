"""A GPU that MindSpore holds no machine code for: the driver translates all of MindSpore's kernels before the first of
them runs, without a word, and keeps them in a cache of its own."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ms_vireid.command.errors import printable
from ms_vireid.command.printing import say

MODULES = 407  # of MindSpore 2.10's libcuda_ops; each becomes a file of the cache
SIZE = 361_000_000  # bytes of all of them, on an H100 with driver 580.159
MEASURED = "195 s on an H100 beside a Xeon"
POLL_S = 0.2
LONG_S = 10.0  # more than a start that finds all of them takes


@contextmanager
def announced(environment: Mapping[str, str]) -> Iterator[None]:
    """A block in which the device's first kernel runs. If the driver translates, a line on stderr says so, with a bar
    on a terminal; a start that finds everything in the cache says nothing.

    A cache of fewer files than there are modules lacks some. A fuller one may hold other programs' files: then it is
    said once the cache grows or, since one that cannot be written does not grow, after `LONG_S`.
    """
    cache, ended = _Cache(environment), threading.Event()
    before = cache.files()
    if lacking := before < MODULES:
        cache.say_that_it_fills()
    watch = threading.Thread(target=_watch, args=(cache, before, lacking, ended))
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(cache: "_Cache", before: int, said: bool, ended: threading.Event) -> None:
    from ms_vireid.command.progress import progress  # only now: it imports tqdm

    begun = time.monotonic()
    while not said:
        if ended.wait(POLL_S):
            return
        if said := cache.files() > before or time.monotonic() - begun > LONG_S:
            cache.say_that_it_fills()
    for _ in progress(_new_files(cache, before, ended), MODULES, "translating", " modules"):
        pass


def _new_files(cache: "_Cache", before: int, ended: threading.Event) -> Iterator[int]:
    while not ended.wait(POLL_S):
        now = cache.files()
        yield from range(before, now)
        before = max(before, now)


class _Cache:
    """Where the driver keeps what it has translated."""

    def __init__(self, environment: Mapping[str, str]):
        self.environment = environment
        chosen, home = environment.get("CUDA_CACHE_PATH"), environment.get("HOME")
        default = Path(home, ".nv", "ComputeCache") if home else None
        self.folder = Path(chosen) if chosen else default

    def files(self) -> int:
        return sum(len(files) for *_, files in os.walk(self.folder)) if self.folder else 0

    def say_that_it_fills(self) -> None:
        what = f"the driver translates MindSpore's {MODULES} modules of kernels for this GPU ({MEASURED})"
        if hindrance := self.hindrance():
            kept = f"{hindrance}, so that every start takes as long"
        else:
            where = f"{printable(str(self.folder))}, {SIZE // 10**6} MB"
            kept = f"it keeps them in {where}: this happens once for this MindSpore, GPU and driver"
        say(f"note: {what}; {kept}", error=True)

    def hindrance(self) -> str | None:
        """Why the driver cannot keep what it translates."""
        if (disabled := self.environment.get("CUDA_CACHE_DISABLE", "")) not in ("", "0"):
            return f"CUDA_CACHE_DISABLE={printable(disabled)} has it keep nothing"
        if (limit := self.environment.get("CUDA_CACHE_MAXSIZE", "")).isdecimal() and int(limit) < SIZE:
            return f"CUDA_CACHE_MAXSIZE={limit} is too small for their {SIZE} bytes"
        if self.folder is None:
            return "it has no folder to keep them in (CUDA_CACHE_PATH names one)"
        there = next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            return (
                f"{printable(str(self.folder))} cannot be written to keep them (CUDA_CACHE_PATH names another folder)"
            )
        return None
