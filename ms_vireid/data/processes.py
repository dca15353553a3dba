"""Work on many pictures in parallel, on all cores."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from ms_vireid.command.errors import InputError
from ms_vireid.command.stopping import how_broken, signal_with_parent
from ms_vireid.devices import runtime
from ms_vireid.files.checks import note

FEW = 4  # chunks: so many are done before processes have started
_SEMAPHORES = 5  # of a queue or an event, at most
Item, Result = TypeVar("Item"), TypeVar("Result")


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], chunk: int, what: str) -> Iterator[Result]:
    """Map `work` over items, in order, with one process per core, `chunk` items at a time. Few items are done in this
    process, and all of them where processes cannot share memory. Raises InputError, which names `what`, if a process is
    killed."""
    count = len(runtime.cores()) or 1
    alone = len(items) <= FEW * chunk
    if not alone and (problem := no_shared_memory(count)):
        note(f"one process works on {what}", f"{problem}; --shm-size gives a container more")
        alone = True
    if alone:
        yield from map(work, items)
        return
    processes = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), initializer=_begin_process)
    try:
        done = processes.map(work, items, chunksize=chunk)
        children = multiprocessing.active_children()
        yield from done
    except BrokenProcessPool:
        processes.shutdown()
        raise InputError(f"{what}: {how_broken(children)}; close other programs, and try again") from None
    finally:
        processes.shutdown(cancel_futures=True)


@contextmanager
def by_fork() -> Iterator[None]:
    """Start processes within the block by fork, as MindSpore's loader has to, whatever the script's start method."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


def require_shared_memory(processes: int, remedy: str = "read in this process (data.workers=0, --workers 0)") -> None:
    """Raise InputError unless so many processes can be started that share queues with this one. remedy: how to do
    without."""
    if processes and (problem := no_shared_memory(processes)):
        raise InputError(f"{problem}; give a container more by --shm-size, or {remedy}")


def no_shared_memory(processes: int) -> str | None:
    """Why this system has none of the semaphores that queues need, which are files in /dev/shm; None if it has them."""
    try:
        _held = [multiprocessing.Semaphore() for _ in range(_SEMAPHORES * (processes + 2))]
    except OSError as error:
        return f"/dev/shm, which processes share, cannot be written ({error.strerror or error})"
    return None


def _begin_process() -> None:
    """Ignore Ctrl-C, which the main process handles; Linux kills this process with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal_with_parent(signal.SIGKILL)
