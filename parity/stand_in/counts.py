"""Count the calls of this process on a stand-in."""

import ctypes
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from types import ModuleType

from parity.stand_in.build import DEVICES


@dataclass(frozen=True)
class Counts:
    """Of one process.

    launches: calls that put a computation on a stream, each at least one kernel on a real device: on a GPU MindSpore's
        own kernels, products, convolutions and other computing calls of cuBLAS, cuDNN and the like, and memsets; on an
        Ascend operators, those of aclnn and those that CANN is handed by name, and memsets.
    copies: in any direction. waits: of the host for the device, for which the device then waits: synchronisations of a
        stream, an event or the device, and copies that are not asynchronous.
    allocations: of device memory and of pinned host memory.
    """

    launches: int
    copies: int
    waits: int
    allocations: int

    def __sub__(self, earlier: "Counts") -> "Counts":
        return Counts(*(now - before for now, before in zip(astuple(self), astuple(earlier), strict=True)))


def counts() -> Counts:
    """Raises RuntimeError: this process does not run on a stand-in."""
    return count(_here()[0], calls())


def count(device: ModuleType, made: Mapping[str, float]) -> Counts:
    """Of calls as `calls` gives them."""

    def number(chosen: Callable[[str], bool]) -> float:
        return sum(times for call, times in made.items() if chosen(name_of(call)))

    return Counts(
        launches=number(device.is_launch),
        copies=number(device.COPIES.__contains__),
        waits=number(device.WAITS.__contains__),
        allocations=number(device.ALLOCATIONS.__contains__),
    )


def functions() -> Counter[str]:
    """Calls by the function's name: those of CUDA and AscendCL as in their manuals, MindSpore's kernels as "Cast<float,
    bool>", aclnn's operators as "aclnnMul(float32, float32, float32)", and those that an Ascend is handed by name as
    "by name: AddN(float32, float32) -> (float32)".

    Raises:
        RuntimeError: this process does not run on a stand-in.
    """
    return _by_name(calls())


def calls() -> Counter[str]:
    """The same, those of a GPU that put work on the device by their tensors too: "Cast<float, bool>", a tab, and
    "bool[4,8] float32[4,8]"; of other functions the name alone."""
    made: Counter[str] = Counter()
    for library in _here()[1]:
        library.stand_in_calls.restype = ctypes.c_char_p
        made += read_calls(library.stand_in_calls().decode())
    return made


def name_of(call: str) -> str:
    """Strip the tensors."""
    return call.partition("\t")[0]


def here() -> bool:
    """Whether this process runs on a stand-in."""
    try:
        return bool(_here())
    except RuntimeError:
        return False


def plant(error: str) -> None:
    """Plant an error on the way to the device from now on; "" for none. Sources that ask `planted` know its name."""
    for library in _here()[1]:
        library.stand_in_plant(error.encode())


def read_log(path: Path) -> Counter[str]:
    """The same of all processes that have ended, from the log that `StandIn.environment` sets."""
    return _by_name(read_calls(path.read_text()))


def read_calls(text: str) -> Counter[str]:
    calls: Counter[str] = Counter()
    for line in text.splitlines():
        made, _, name = line.partition(" ")
        calls[name] += int(made)
    return calls


def _by_name(made: Counter[str]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for call, times in made.items():
        sums[name_of(call)] += times
    return sums


def _here() -> tuple[ModuleType, list[ctypes.CDLL]]:
    """The device that this process has a stand-in for, and its libraries."""
    for device in DEVICES.values():
        with suppress(OSError, AttributeError):  # no such library, or another one
            libraries = [ctypes.CDLL(soname) for soname in device.SONAMES]
            assert all(library.stand_in_calls for library in libraries)
            return device, libraries
    raise RuntimeError("this process does not run on a stand-in: python -m parity.stand_in gpu|ascend COMMAND ...")
