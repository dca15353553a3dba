"""Processes side by side, each on its own cores, because MindSpore's threads wait by yielding theirs; and commands in
their own sessions."""

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any

from ms_vireid.command.errors import InputError
from ms_vireid.command.stopping import how_broken, signal_with_parent
from ms_vireid.data.processes import require_shared_memory
from ms_vireid.devices import runtime

_SMALLER = "try smaller batches (--identities, --instances, --images)"


@contextmanager
def executor(count: int, begin: Callable, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """`count` processes that share the cores; if one dies, tasks raise BrokenProcessPool. The end of the block drops
    those that have not begun. Linux kills the processes with this one. Raises InputError if this system lets none share
    memory.

    begin: called in each, with the arguments. They begin with the first tasks, in the environment of that moment.
    """
    require_shared_memory(count, "mount one")
    spawn = multiprocessing.get_context("spawn")
    free = spawn.Queue()
    for number in range(count):
        free.put(runtime.cores()[number::count])
    others = ProcessPoolExecutor(count, spawn, _begin, (free, begin, arguments))
    try:
        yield others
    finally:
        others.shutdown(cancel_futures=True)


class OneProcess(ProcessPoolExecutor):
    """A process of its own, which begins with the first task. Raises InputError as `executor` does."""

    def __init__(self):
        require_shared_memory(1, "mount one")
        super().__init__(1, multiprocessing.get_context("spawn"))
        self._children: list = []

    def ask(self, function: Callable, *arguments: Any) -> Any:
        """Return what a function returns there. Raises what it raises, and InputError if the process has ended."""
        try:
            answer = self.submit(function, *arguments)
            self._children = self._children or multiprocessing.active_children()
            return answer.result()
        except BrokenProcessPool:
            self.shutdown()
            raise InputError(f"{how_broken(self._children)}; {_SMALLER}") from None


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
