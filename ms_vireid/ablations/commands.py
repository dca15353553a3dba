"""Commands of this project in processes of their own, one after the other or side by side."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ms_vireid.devices import runtime

Task = TypeVar("Task")
Result = TypeVar("Result")

_running: set[subprocess.Popen] = set()
_stops: list[int] = []  # signals that came, where they are handed on


def start(command, arguments: list[str], log: Path, title: str = "") -> str | None:
    """Run a command of this project, appending what it prints to `log`, and printing it with `title` before each line.

    A process of its own gives its memory back, and takes no other with it when it is killed. It is in a session of its
    own, so that Ctrl-C reaches it once, through this process, within `handing_stops_on`; if this process is killed
    outright, it ends with its next line of output.

    Returns: None, or the reason of its failure in one line.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the command has ended.
    """
    if _stops:
        raise KeyboardInterrupt
    words = [sys.executable, "-u", command.__file__, *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    last = ""
    with log.open("a", encoding="utf-8") as file:
        child = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
        )
        _running.add(child)
        if _stops:  # one that came while it was being started, with nothing to save yet
            child.terminate()
        with child:
            for line in child.stdout:
                file.write(line)
                file.flush()
                tqdm.write(title + line.rstrip("\n"))
                last = line.strip() or last
            child.wait()
        _running.discard(child)
    if _stops:
        raise KeyboardInterrupt
    if child.returncode < 0:
        return f"killed by {signal.Signals(-child.returncode).name} (out of memory?)"
    return (last.removeprefix("error: ") or f"exit code {child.returncode}") if child.returncode else None


@contextmanager
def handing_stops_on() -> Iterator[None]:
    """A block, of the main thread, in which SIGINT and SIGTERM go to the commands that run, which save and end."""

    def forward(number, _frame):
        _stops.append(number)
        for child in list(_running):
            child.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _stops.clear()


def side_by_side(
    make: Callable[[Task], Result], tasks: Sequence[Task], processes: int
) -> Iterator[tuple[Task, Result]]:
    """Each task with what `make` returns, as they end; so many at a time, whose commands share the cores out.

    MindSpore's threads wait by yielding their core: two trainings on the same cores slow each other down.
    """
    if processes == 1:
        yield from ((task, make(task)) for task in tasks)
        return
    shares = iter([runtime.cores()[number::processes] for number in range(processes)])
    pool = ThreadPoolExecutor(processes, initializer=lambda: _keep_to(next(shares)))
    try:
        begun = {pool.submit(make, task): task for task in tasks}
        for done in as_completed(begun):
            yield begun[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _keep_to(share: Sequence[int]) -> None:
    """Bind this thread, and with it the processes that it starts, to these cores; no core: to none."""
    if share:
        os.sched_setaffinity(0, share)
