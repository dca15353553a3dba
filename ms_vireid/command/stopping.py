"""Signals: a request to stop, answered when the step in hand is done, and the end of other processes."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

STOPS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM fill, so that the current step is finished; a second signal stops at once.

    Within another one the list stays empty: the outer one decides when to stop. So it does outside the main thread, to
    which Python gives all signals.
    """
    requests: list[int] = []
    answered = getattr(signal.getsignal(signal.SIGINT), "func", None) is _request
    if answered or threading.current_thread() is not threading.main_thread():
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
    """Have Linux send this process a signal when its parent ends; does nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def leave_to_parent() -> None:
    """Leave the end of a worker to its parent. Ctrl-C and a job scheduler's SIGTERM reach the whole process group. If
    the parent itself is killed, a worker with unread results would wait forever: so Linux kills it with its parent."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal_with_parent(signal.SIGKILL)


def end_with_workers(seconds: int = 10) -> None:
    """Have a process of its own end this one, msrun's scheduler, once all workers beside it have been gone for some
    seconds. MindSpore's would wait ten minutes for workers that were killed before they met, and msrun for it; no
    thread of this process could run meanwhile. Does nothing where no msrun has started it."""
    scheduler, launcher = os.getpid(), psutil.Process(os.getppid())
    if not any(Path(word).name == "msrun" for word in launcher.cmdline()) or os.fork():
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the others answer it
    signal_with_parent(signal.SIGKILL)
    missing = 0
    while missing < seconds and os.getppid() == scheduler:
        time.sleep(1)
        missing = 0 if any(_is_worker(one, scheduler) for one in launcher.children()) else missing + 1
    if os.getppid() == scheduler:
        os.kill(scheduler, signal.SIGTERM)
    os._exit(0)


def _is_worker(process, scheduler: int) -> bool:
    """Whether one of msrun's processes is a worker that lives; it also starts a `tail` for each one's log."""
    try:
        return process.pid != scheduler and process.status() != psutil.STATUS_ZOMBIE and process.name() != "tail"
    except psutil.NoSuchProcess:
        return False
