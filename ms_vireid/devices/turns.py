"""Threads take turns at the device: MindSpore's results are wrong, or the process ends, where two compute at once."""

import atexit
import os
import threading
from collections import deque
from contextlib import ContextDecorator

from ms_vireid.command.errors import InputError


class Turns(ContextDecorator):
    """A lock that threads get in the order in which they ask; its holder may take it again. As a decorator it holds for
    a function.

    Raises InputError in a process that was forked after `begin_use`: threads of MindSpore do not live on in it, and it
    would wait for them for ever.
    """

    def __init__(self):
        self._lock = threading.Lock()  # of the attributes below
        self._waiting: deque[threading.Event] = deque()
        self._holder: int | None = None  # thread
        self._depth = 0
        self._process: int | None = None  # that uses the device

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_error) -> None:
        self.give_back()

    def take(self, wait: bool = True) -> bool:
        """Wait for the turn, or return whether it is this thread's without waiting."""
        self.require_own_process()
        thread, called = threading.get_ident(), threading.Event()
        with self._lock:
            if self._holder in (None, thread):
                self._holder = thread
                self._depth += 1
                return True
            if not wait:
                return False
            self._waiting.append(called)
        try:
            called.wait()
            self._holder, self._depth = thread, 1
        except BaseException:  # Ctrl-C
            self._leave(called)
            raise
        return True

    def give_back(self) -> None:
        """Give the turn to the thread that has waited longest."""
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._pass_on()

    def require_own_process(self) -> None:
        """Raise InputError in a process that was forked from one that used the device already."""
        if self._process not in (None, os.getpid()):
            raise InputError(
                f"process {os.getpid()} was forked from {self._process}, which used the device before, and MindSpore "
                "cannot compute in it: make the Searcher in each process (gunicorn without --preload), and start "
                "processes by multiprocessing.get_context('spawn')"
            )

    def begin_use(self) -> None:
        """Call this before the first kernel: from now on a forked process cannot compute. And no thread computes while
        libraries that are imported by now are taken down at the end of the process."""
        self._process = os.getpid()
        atexit.unregister(self._close)  # what is registered last runs first
        atexit.register(self._close)

    def _close(self) -> None:
        if self._process in (None, os.getpid()):
            self.take()

    def _pass_on(self) -> None:
        """Call the next thread. `_holder` is not None until it runs, so that no other takes its turn."""
        self._holder = -1 if self._waiting else None
        if self._waiting:
            self._waiting.popleft().set()

    def _leave(self, called: threading.Event) -> None:
        """Wait no longer."""
        with self._lock:
            if called.is_set():
                self._pass_on()
            else:
                self._waiting.remove(called)


DEVICE = Turns()
