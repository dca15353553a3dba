"""Processes side by side, each on cores that no other has, as MindSpore's threads wait by yielding their core; and
commands in sessions of their own."""

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.pool import Pool
from multiprocessing.util import Finalize
from typing import Any

from ms_vireid.devices import runtime


def pool(count: int) -> Pool:
    """So many processes at a time, which share the cores out; each task has a fresh one."""
    spawn = multiprocessing.get_context("spawn")
    return spawn.Pool(count, _begin, (_shares(count),), maxtasksperchild=1)


def executor(count: int, begin: Callable, *arguments: Any) -> ProcessPoolExecutor:
    """So many processes, likewise, each for many tasks; one that ends on the way is told of (BrokenProcessPool).

    begin: called in each, with the arguments. They begin with the first tasks, in the environment of that moment.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, spawn, _begin, (_shares(count), begin, arguments))


def _shares(count: int) -> multiprocessing.Queue:
    """Of the cores, one for each process."""
    free = multiprocessing.get_context("spawn").Queue()
    for number in range(count):
        free.put(runtime.cores()[number::count])
    return free


def _begin(free: multiprocessing.Queue, begin: Callable | None = None, arguments: tuple = ()) -> None:
    share = free.get()
    Finalize(None, free.put, (share,), exitpriority=0)
    if share:
        os.sched_setaffinity(0, share)
    if begin:
        begin(*arguments)


@contextmanager
def session(command: Sequence[str], **options) -> Iterator[subprocess.Popen]:
    """A command in a session of its own, whose processes are killed at the end of the block, by SIGKILL: a graph that
    hangs survives SIGTERM. options: of `subprocess.Popen`."""
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            _kill(process)


def run(command: Sequence[str], limit_s: float, **options) -> subprocess.CompletedProcess[str]:
    """Run a command in a session of its own to its end; stdout holds all that it printed.

    Raises:
        subprocess.TimeoutExpired: it was still running after `limit_s` seconds, and was killed; with its output.
    """
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with session(command, **options) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as expired:
            _kill(process)
            expired.output, _ = process.communicate()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def _kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
