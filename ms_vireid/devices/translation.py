"""Slow starts on a GPU for which MindSpore ships no machine code: before the first kernel runs, the driver compiles all
of MindSpore's kernels, one module after the other, and keeps them in its own cache. This announces it, and hands the
modules to the driver before, by several processes at once, so that MindSpore finds them in the cache."""

import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ms_vireid.command.errors import InputError, printable
from ms_vireid.command.printing import say

MODULES = 407  # in MindSpore 2.10's libcuda_ops; each becomes a file in the cache
SIZE = 361_000_000  # total bytes, on an H100 with driver 580.159
MEASURED = "3 to 4 minutes on an H100"  # 188 to 226 s, by one process
LIBRARY = Path("lib", "plugin", "gpu", "libcuda_ops.so.11")  # in MindSpore's folder
TRANSLATORS = "MS_VIREID_TRANSLATORS"  # how many processes; below 2 leaves the modules to MindSpore
_TRANSLATOR = Path(__file__).with_name("translator.py")
_WRAPPER = struct.Struct("<IIQQ")  # __fatBinC_Wrapper_t of CUDA's fatbinary_section.h: the third is the code's address
_WRAPPER_MARK = 0x466243B1


def prepare(environment: Mapping[str, str], library: Path, cores: int, device: int = 0) -> int:
    """Unless the driver's cache has a file for each module, print a line on stderr, and have as many processes as there
    are `cores`, or as `TRANSLATORS` says, fill it. Nothing happens where other programs, or an earlier driver, left as
    many files; where the driver keeps none, it is announced alone. Call it before the device's first kernel, and
    `check` behind it.

    library: MindSpore's `LIBRARY`. device: the GPU's number. Returns how many modules processes have handed to the
    driver. Raises InputError for another value of `TRANSLATORS` than a whole number.
    """
    folder, disabled = _folder(environment), environment.get("CUDA_CACHE_DISABLE", "") not in ("", "0")
    processes = _processes(environment, cores)
    if folder and not disabled and _files(folder) >= MODULES:
        return 0
    what = f"the driver now translates MindSpore's {MODULES} modules of kernels for this GPU"
    if hindrance := _hindrance(environment, folder, disabled):
        say(f"note: {what} ({MEASURED}); {hindrance}, so that every start takes as long", error=True)
        return 0
    places = modules(library) if processes > 1 else []
    how_long = f"{MEASURED} by one process, here by {processes}" if places else MEASURED
    where = f"{printable(str(folder))}, {SIZE // 10**6} MB"
    say(
        f"note: {what} ({how_long}); it keeps them in {where}: this happens once for this MindSpore, GPU and driver",
        error=True,
    )
    if not places:
        return 0
    begun = time.monotonic()
    taken = _translate(library, places, processes, device)
    left = "" if taken == len(places) else "; MindSpore has the rest translated"
    seconds = time.monotonic() - begun
    say(f"note: {taken} of {len(places)} modules have been translated in {seconds:.0f} s{left}", error=True)
    return taken


def check(environment: Mapping[str, str], taken: int) -> None:
    """Say so if the driver has translated modules again for MindSpore that it had translated before: its cache then has
    two files for each. taken: what `prepare` returned."""
    folder = _folder(environment)
    if folder and taken and _files(folder) >= taken + MODULES:
        again = f"it has translated them again for MindSpore; {TRANSLATORS}=0 spares the first time, on other machines"
        say(f"note: the driver has not found in its cache what it translated: {again}", error=True)


def modules(library: Path) -> list[int]:
    """Return where each module of CUDA code begins in a library for Linux on 64 bits, the largest first; none where the
    file is no such library, or holds none."""
    try:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            sections = _sections(data)
            address, place, size = sections[b".nv_fatbin"]
            starts = sorted(value - address + place for value in _addresses(data, sections))
            if not starts or not place <= starts[0] <= starts[-1] < place + size <= len(data):
                return []
    except (OSError, LookupError, ValueError, struct.error):
        return []
    sizes = {start: end - start for start, end in zip(starts, [*starts[1:], place + size], strict=True)}
    return sorted(sizes, key=sizes.__getitem__, reverse=True)


def _sections(data: mmap.mmap) -> dict[bytes, list[int]]:
    """Return the sections of an ELF file of 64 bits, by name: address, place in the file, and size."""
    if data[:6] != b"\x7fELF\2\1":
        raise ValueError("not such a file")
    (table,), (step, count, of_names) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQ", data, table + step * number) for number in range(count)]
    names = headers[of_names][4]  # where they stand in the file, each with a 0 behind it
    return {data[names + name : data.find(b"\0", names + name)]: where for name, _, _, *where in headers}


def _addresses(data: mmap.mmap, sections: dict[bytes, list[int]]) -> list[int]:
    """Return the address of each module's code, which its wrapper has once the library is loaded."""
    first, place, size = sections[b".nvFatBinSegment"]
    _, relocations, length = sections[b".rela.dyn"]
    relocated = {
        where: value for where, _, value in struct.iter_unpack("<QQq", data[relocations : relocations + length])
    }
    wrappers = struct.iter_unpack(_WRAPPER.format, data[place : place + size])
    return [
        relocated[first + number * _WRAPPER.size + 8]
        for number, (mark, *_) in enumerate(wrappers)
        if mark == _WRAPPER_MARK
    ]


def _translate(library: Path, places: list[int], processes: int, device: int) -> int:
    """Have processes hand the modules at these places to the driver, each the next one that none has taken. Returns how
    many the driver has taken; a process that cannot start, or dies, leaves its modules to the others."""
    queue, given = os.pipe()
    done, told = os.pipe()
    command = [sys.executable, "-I", "-S", str(_TRANSLATOR), str(library), str(device)]
    running = []
    try:
        os.write(given, b"".join(place.to_bytes(8, "little") for place in places))  # at most the 64 KiB of a pipe
        os.close(given)
        with suppress(OSError):
            while len(running) < processes:
                running.append(subprocess.Popen(command, stdin=queue, stdout=told, stderr=subprocess.DEVNULL))
        os.close(told)
        taken = 0
        while bytes_read := os.read(done, 4096):
            taken += len(bytes_read)
        return taken
    finally:
        for process in running:
            process.kill()
            process.wait()
        os.close(queue)
        os.close(done)


def _folder(environment: Mapping[str, str]) -> Path | None:
    """Return the driver's cache, which need not exist."""
    chosen, home = environment.get("CUDA_CACHE_PATH"), environment.get("HOME")
    return Path(chosen) if chosen else Path(home, ".nv", "ComputeCache") if home else None


def _files(folder: Path) -> int:
    return sum(len(files) for *_, files in os.walk(folder))


def _processes(environment: Mapping[str, str], cores: int) -> int:
    chosen = environment.get(TRANSLATORS, str(cores))
    if not (chosen.isascii() and chosen.isdecimal() and len(chosen) < 5):
        raise InputError(f"{TRANSLATORS}={chosen[:80]}: is no number of processes from 0 to 9999; unset it")
    return min(int(chosen), MODULES)


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
