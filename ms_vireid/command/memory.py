"""How much memory is available, and an error before more than that is requested."""

import re
from contextlib import suppress
from pathlib import Path

import psutil

from ms_vireid.command.errors import InputError

# Limits of a container, which psutil does not know: folder, files with limit and use, name of the reclaimable part.
_CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory() -> int:
    """Return how many bytes this process could still allocate."""
    free = [psutil.virtual_memory().available + psutil.swap_memory().free]
    for folder, limit, used, inactive in _CGROUPS:
        with suppress(OSError, ValueError):  # no such group, or no limit ("max")
            most, current = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
            free.append(most - current + _reclaimable(folder / "memory.stat", inactive))
    return max(min(free), 0)


def _reclaimable(statistics: Path, name: str) -> int:
    """Return the bytes of cached files that a container counts as used, but which the system drops when needed; 0 if
    unknown."""
    with suppress(OSError):
        if match := re.search(rf"^{name} (\d+)$", statistics.read_text(encoding="ascii"), re.MULTILINE):
            return int(match[1])
    return 0


def require_memory(size: int, doing: str, remedy: str) -> None:
    """Raise InputError if `size` bytes are more than available."""
    if size > (available := available_memory()):
        needed, left = (f"{number / 2**30:,.1f} GiB" for number in (size, available))
        raise InputError(f"{doing} needs {needed} of memory, {left} is free; {remedy}")
