"""How much memory there is, and one line before it is asked for in vain."""

import math
from pathlib import Path

from ms_vireid.command.errors import InputError

_GROUPS = (  # of a container: its limit, and what it uses
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def available_memory() -> float | None:
    """Bytes that this process could still get, as Linux says; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = [1024 * int(line.split()[1]) for line in lines if line.startswith(("MemAvailable:", "SwapFree:"))]
    return max(min(sum(free), *(_left(limit, used) for limit, used in _GROUPS)), 0)


def _left(limit: Path, used: Path) -> float:
    try:
        return int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return math.inf


def require_memory(size: int, doing: str, remedy: str) -> None:
    """Raise InputError if `size` bytes are more than there are."""
    available = available_memory()
    if available is not None and size > available:
        raise InputError(f"{doing} needs {gib(size)} of memory, there are {gib(available)}; {remedy}")


def gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"


def peak_bytes() -> int:
    """Of resident memory, of this program alone (getrusage also counts what ran in the process before), on Linux."""
    return _of_this_process("VmHWM:")


def resident_bytes() -> int:
    """Of this process now, on Linux."""
    return _of_this_process("VmRSS:")


def _of_this_process(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
