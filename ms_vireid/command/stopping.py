"""Signals: a request to stop, answered when the step in hand is done, and the end of a parent process."""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

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
