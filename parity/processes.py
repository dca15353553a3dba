"""Processes side by side, each on cores that no other has: MindSpore's threads wait by yielding their core."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.pool import Pool
from multiprocessing.util import Finalize
from typing import Any

from ms_vireid import runtime


def pool(count: int, tasks: int | None = None, begin: Callable | None = None, *arguments: Any) -> Pool:
    """So many fresh processes, which share the cores out.

    tasks: after which a process is replaced by another; None: never. begin: called in each, with the arguments.
    """
    spawn = multiprocessing.get_context("spawn")
    free = spawn.Queue()
    for number in range(count):
        free.put(runtime.cores()[number::count])
    return spawn.Pool(count, _begin, (free, begin, arguments), tasks)


def _begin(free: multiprocessing.Queue, begin: Callable | None, arguments: tuple) -> None:
    share = free.get()
    Finalize(None, free.put, (share,), exitpriority=0)
    if share:
        os.sched_setaffinity(0, share)
    if begin:
        begin(*arguments)
