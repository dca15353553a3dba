"""How much memory there is, and one line before it is asked for in vain."""

import ctypes
import gc
import re
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from ms_vireid.command.errors import InputError

_GROUPS = (  # of a container, which psutil does not know: folder, limit, use, and of this what `_reclaimable` takes
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory() -> int:
    """Bytes that this process could still get."""
    free = [psutil.virtual_memory().available + psutil.swap_memory().free]
    for folder, limit, used, inactive in _GROUPS:
        with suppress(OSError, ValueError):  # no such group, or no limit ("max")
            most, now = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
            free.append(most - now + _reclaimable(folder / "memory.stat", inactive))
    return max(min(free), 0)


def _reclaimable(statistics: Path, name: str) -> int:
    """Bytes of files read that a container counts as used and the system drops as soon as it needs them; 0 where it
    does not say."""
    with suppress(OSError):
        if found := re.search(rf"^{name} (\d+)$", statistics.read_text(encoding="ascii"), re.MULTILINE):
            return int(found[1])
    return 0


def give_back() -> None:
    """Give what is no longer used back to the system, which the C library keeps otherwise: gigabytes after models of
    full size."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)


def require_memory(size: int, doing: str, remedy: str) -> None:
    """Raise InputError if `size` bytes are more than there are."""
    if size > (available := available_memory()):
        needed, there = (f"{number / 2**30:,.1f} GiB" for number in (size, available))
        raise InputError(f"{doing} needs {needed} of memory, there are {there}; {remedy}")


def resident_bytes() -> int:
    """Of this process now."""
    return psutil.Process().memory_info().rss


def peak_bytes() -> int:
    """The largest so far, on Linux: of this program alone, while getrusage also counts what started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
