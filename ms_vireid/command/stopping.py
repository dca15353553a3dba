"""Signals: requests to stop after the current step, and processes that end with others."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from ms_vireid.command.starting import STOPS

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that the current step can be finished; a second signal stops at once.

    Within another such block the list stays empty: the outer block decides when to stop. The list also stays empty
    outside the main thread, since Python delivers signals to the main thread.
    """
    requests: list[int] = []
    within_another = getattr(signal.getsignal(signal.SIGINT), "func", None) is _request
    if within_another or threading.current_thread() is not threading.main_thread():
        yield requests
        return
    previous = {number: signal.signal(number, partial(_request, requests)) for number in STOPS}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _request(requests: list[int], number: int, _frame) -> None:
    if requests:
        raise KeyboardInterrupt
    requests.append(number)


def signal_with_parent(number: int) -> None:
    """Let Linux send this process a signal when its parent ends. Elsewhere, do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def leave_to_parent() -> None:
    """Let its parent end this worker: ignore Ctrl-C and a job scheduler's SIGTERM, which reach the whole process group.
    Linux kills the worker with its parent, since with unread results it would wait forever."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal_with_parent(signal.SIGKILL)


def how_ended(code: int) -> str:
    """Say how a process ended, by its exit code as `subprocess` gives it."""
    if code >= 0:
        return f"ended with exit code {code}"
    if code == -signal.SIGKILL:
        return "was killed, as Linux does when memory runs out"
    return f"was ended by {signal.Signals(-code).name}"


def how_broken(processes: Iterable[BaseProcess]) -> str:
    """Say how the process ended that broke a pool of these, which has been shut down: the pool ends the others by
    SIGTERM."""
    codes = [one.exitcode for one in processes if one.exitcode not in (None, 0, -signal.SIGTERM)]
    return f"a process {how_ended(codes[0])}" if codes else "a process ended"


def end_with_workers(seconds: int = 10) -> None:
    """End this process, msrun's scheduler, once all workers have been gone for some seconds.

    MindSpore's scheduler waits ten minutes for workers that were killed before they met, and msrun waits for it. No
    thread of this process runs meanwhile, so a forked process watches. Does nothing without msrun.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler in Python waits for MindSpore, which waits
    scheduler, launcher = os.getpid(), psutil.Process(os.getppid())
    if not within_msrun() or os.fork():
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other processes answer Ctrl-C
    signal_with_parent(signal.SIGKILL)
    missing = 0
    while missing < seconds and os.getppid() == scheduler:
        time.sleep(1)
        missing = 0 if any(_is_worker(one, scheduler) for one in launcher.children()) else missing + 1
    if os.getppid() == scheduler:
        os.kill(scheduler, signal.SIGTERM)
    os._exit(0)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A block of C++ that lets no handler of Python run: SIGINT and SIGTERM, unless ignored, end this process."""
    handlers = {number: signal.getsignal(number) for number in STOPS if signal.getsignal(number) != signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def within_msrun() -> bool:
    """Whether MindSpore's launcher started this process: it also shows what others of it print."""
    return any(Path(word).name == "msrun" for word in psutil.Process(os.getppid()).cmdline())


def _is_worker(process, scheduler: int) -> bool:
    """Whether a process of msrun is a living worker. msrun also starts a `tail` for each log."""
    try:
        return process.pid != scheduler and process.status() != psutil.STATUS_ZOMBIE and process.name() != "tail"
    except psutil.NoSuchProcess:
        return False
