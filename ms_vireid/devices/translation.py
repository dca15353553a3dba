"""Announces slow starts on a GPU for which MindSpore ships no machine code: before the first kernel runs, the driver
silently compiles all of MindSpore's kernels, and keeps them in its own cache."""

import os
from collections.abc import Mapping
from pathlib import Path

from ms_vireid.command.errors import printable
from ms_vireid.command.printing import say

MODULES = 407  # in MindSpore 2.10's libcuda_ops; each becomes a file in the cache
SIZE = 361_000_000  # total bytes, on an H100 with driver 580.159
MEASURED = "3 to 4 minutes on an H100"  # 188 to 226 s


def announce(environment: Mapping[str, str]) -> None:
    """Print a line on stderr if the driver is going to compile: its cache has fewer files than there are modules, or
    keeps none. Nothing is said where other programs, or an earlier driver, left as many. Call it before the device's
    first kernel."""
    chosen, home = environment.get("CUDA_CACHE_PATH"), environment.get("HOME")
    folder = Path(chosen) if chosen else Path(home, ".nv", "ComputeCache") if home else None
    disabled = environment.get("CUDA_CACHE_DISABLE", "") not in ("", "0")
    if folder and not disabled and sum(len(files) for *_, files in os.walk(folder)) >= MODULES:
        return
    if hindrance := _hindrance(environment, folder, disabled):
        how_often = f"{hindrance}, so that every start takes as long"
    else:
        where = f"{printable(str(folder))}, {SIZE // 10**6} MB"
        how_often = f"it keeps them in {where}: this happens once for this MindSpore, GPU and driver"
    what = f"the driver now translates MindSpore's {MODULES} modules of kernels for this GPU ({MEASURED})"
    say(f"note: {what}; {how_often}", error=True)


def _hindrance(environment: Mapping[str, str], folder: Path | None, disabled: bool) -> str | None:
    """Return why the driver cannot keep compiled kernels, or None."""
    if disabled:
        return f"CUDA_CACHE_DISABLE={printable(environment['CUDA_CACHE_DISABLE'])} has it keep nothing"
    if (limit := environment.get("CUDA_CACHE_MAXSIZE", "")).isdecimal() and int(limit) < SIZE:
        return f"CUDA_CACHE_MAXSIZE={limit} is too small for their {SIZE} bytes"
    if folder is None:
        return "it has no folder to keep them in (CUDA_CACHE_PATH names one)"
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return None
    return f"{printable(str(folder))} cannot be written to keep them (CUDA_CACHE_PATH names another folder)"
