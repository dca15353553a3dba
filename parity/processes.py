"""Processes side by side, each on its own cores, because MindSpore's threads wait by yielding theirs; and commands in
their own sessions."""

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from ms_vireid.command.stopping import signal_with_parent
from ms_vireid.devices import runtime


@contextmanager
def executor(count: int, begin: Callable, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """`count` processes that share the cores; if one dies, tasks raise BrokenProcessPool. The end of the block drops
    those that have not begun. Linux kills the processes with this one.

    begin: called in each, with the arguments. They begin with the first tasks, in the environment of that moment.
    """
    spawn = multiprocessing.get_context("spawn")
    free = spawn.Queue()
    for number in range(count):
        free.put(runtime.cores()[number::count])
    others = ProcessPoolExecutor(count, spawn, _begin, (free, begin, arguments))
    try:
        yield others
    finally:
        others.shutdown(cancel_futures=True)


def _begin(free: multiprocessing.Queue, begin: Callable, arguments: tuple) -> None:
    signal_with_parent(signal.SIGKILL)
    if share := free.get():
        os.sched_setaffinity(0, share)
    begin(*arguments)


def set_up_for_comparisons(device: str) -> str:
    """Set this process up to compute in full float32, and return what the device is, in words."""
    words = runtime.set_up(device)
    runtime.cap_convolutions()
    runtime.use_full_float32()
    return words


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
