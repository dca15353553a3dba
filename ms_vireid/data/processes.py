"""Work on many pictures, shared out among all cores."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ms_vireid.command.errors import InputError
from ms_vireid.command.stopping import signal_with_parent
from ms_vireid.devices import runtime

FEW = 4  # times what a process is given: so many are done sooner than processes for them begin
Item, Result = TypeVar("Item"), TypeVar("Result")


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], at_a_time: int, what: str) -> Iterator[Result]:
    """`work` of each item, in order, by as many processes as there are cores; each is given `at_a_time` items. A few
    items are done in this process. Raises InputError, which names `what`, if a process is killed."""
    if len(items) <= FEW * at_a_time:
        yield from map(work, items)
        return
    processes = ProcessPoolExecutor(len(runtime.cores()) or 1, initializer=_begin_process)
    try:
        yield from processes.map(work, items, chunksize=at_a_time)
    except BrokenProcessPool:
        raise InputError(f"{what}: a process at work on it was killed (out of memory?); try again") from None
    finally:
        processes.shutdown(cancel_futures=True)


def _begin_process() -> None:
    """Leave Ctrl-C to the main process, which it reaches as well; Linux kills this one with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal_with_parent(signal.SIGKILL)
