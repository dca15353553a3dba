"""One framework's side of the benchmark, in its own process, which works when asked and reports the time. PyTorch's and
MindSpore's oneDNN read the same environment variables, so they cannot share a process."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.devices import runtime
from parity.measure.work import Work
from parity.processes import OneProcess

FRAMEWORKS = ("mindspore", "torch")


class Worker:
    """A process that has done its work once. value: what came out. first: the seconds that this took from the start of
    the process, imports included.

    Raises:
        InputError: the work cannot be done, or, here and later, the process has ended, as for want of memory.
    """

    def __init__(self, framework: str, work: Work):
        begun = time.perf_counter()
        self.framework = framework
        self.process = OneProcess()
        self.value = self._ask(_begin, framework, work)
        self.first = time.perf_counter() - begun

    def run(self) -> float:
        """Run a measurement's steps; return the seconds of one, as the process measured them."""
        return self._ask(_run)

    def memory(self) -> tuple[float, float | None]:
        """Peaks in GiB: of the device's memory that the framework has given out and that it holds; on a CPU the
        process's resident memory, and None."""
        return self._ask(_peaks, self.framework)

    def close(self) -> None:
        """End the process."""
        self.process.shutdown()

    def _ask(self, function: Callable, *arguments: Any) -> Any:
        try:
            return self.process.ask(function, *arguments)
        except InputError as error:
            raise InputError(f"{self.framework}: {error}") from None


# Of a worker's process: its work, done as often as asked, of which the last result is returned; how often a measurement
# does it; and the block that binds its threads.
_do: Callable[[int], np.ndarray] | None = None
_steps = 1
_bound = ExitStack()


def _begin(framework: str, work: Work) -> np.ndarray:
    global _do, _steps
    if framework == "mindspore":
        runtime.set_up(work.device)
    # Only now: a process has its own framework alone, and mindspore's device is set up before it is imported.
    side = import_module(_SIDES[framework])
    _do, _steps = side.prepare(work), work.steps
    value = _do(1)
    # As in training and evaluation, from the second item on.
    if framework == "mindspore":
        _bound.enter_context(side.bound_threads(work))
    return value


def _run() -> float:
    begun = time.perf_counter()
    _do(_steps)
    return (time.perf_counter() - begun) / _steps


def _peak_bytes() -> int:
    """Return this program's peak on Linux; getrusage would include the program that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _peaks(framework: str) -> tuple[float, float | None]:
    """Return the peaks of `Worker.memory`."""
    if of_device := import_module(_SIDES[framework]).device_peaks():
        return tuple(size / 2**30 for size in of_device)
    return _peak_bytes() / 2**30, None


# Modules with `prepare`, which makes the function that does the work.
_SIDES = {side: f"parity.measure.{side}_side" for side in FRAMEWORKS}
