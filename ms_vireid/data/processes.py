"""Work on many pictures in parallel, on all cores."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ms_vireid.command.errors import InputError
from ms_vireid.command.stopping import signal_with_parent
from ms_vireid.devices import runtime

FEW = 4  # chunks: so many are done before processes have started
Item, Result = TypeVar("Item"), TypeVar("Result")


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], chunk: int, what: str) -> Iterator[Result]:
    """Map `work` over items, in order, with one process per core, `chunk` items at a time. Few items are done in this
    process. Raises InputError, which names `what`, if a process is killed."""
    if len(items) <= FEW * chunk:
        yield from map(work, items)
        return
    processes = ProcessPoolExecutor(len(runtime.cores()) or 1, initializer=_begin_process)
    try:
        yield from processes.map(work, items, chunksize=chunk)
    except BrokenProcessPool:
        raise InputError(f"{what}: a process at work on it was killed (out of memory?); try again") from None
    finally:
        processes.shutdown(cancel_futures=True)


def _begin_process() -> None:
    """Ignore Ctrl-C, which the main process handles; Linux kills this process with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal_with_parent(signal.SIGKILL)
