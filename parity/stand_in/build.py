"""Build a stand-in, once for its sources, and run commands on it."""

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess, Popen, TimeoutExpired
from typing import Any

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.devices.runtime import cache_folder
from ms_vireid.files.checks import file_checksum
from parity import processes
from parity.stand_in import ascend, gpu
from parity.stand_in.toolchain import SHARED, absent_tools, do

DEVICES = {"GPU": gpu, "Ascend": ascend}
_SOURCES = Path(__file__).parent
_CONTENT = "content.sha256"  # in a stand-in's folder


@dataclass(frozen=True)
class StandIn:
    """A stand-in built in a folder, for "GPU" or "Ascend"."""

    device: str
    folder: Path

    def environment(
        self, log: Path | None = None, memory: int | None = None, values: bool = True, planted: str = ""
    ) -> dict[str, str]:
        """Return the environment variables that a process on it needs.

        Args:
            log: file to which each process appends, when it ends, a line "calls name" for every function it has called.
            memory: of the device, in bytes; default: what a large one has. Pages that nobody writes cost the host
                nothing.
            values: whether launches are computed. Counts at full size need no values.
            planted: an error on the way to the device; the sources that ask `planted` know its name.
        """
        device = DEVICES[self.device]
        found = [*map(str, device.library_folders(self.folder)), os.environ.get("LD_LIBRARY_PATH")]
        variables = device.variables(self.folder) | {
            "LD_LIBRARY_PATH": ":".join(filter(None, found)),
            "STAND_IN_MEMORY": str(memory or device.MEMORY),
            "STAND_IN_VALUES": str(int(values)),
            # Else MindSpore runs on the CPU, without a word, what a compiled graph has no kernel of the device for.
            "MS_DISABLE_KERNEL_BACKOFF": "1",
        }
        if log:
            variables["STAND_IN_LOG"] = str(log)
        if planted:
            variables["STAND_IN_PLANT"] = planted
        return variables

    def start(
        self, command: Sequence[str], variables: Mapping[str, str] | None = None, **options
    ) -> AbstractContextManager[Popen]:
        """`parity.processes.session` on the stand-in.

        Args:
            variables: of the environment, to be set besides `environment()`'s. options: of `subprocess.Popen`.
        """
        return processes.session(command, env=self._variables(variables), **options)

    def run(
        self, command: Sequence[str], limit_s: float, variables: Mapping[str, str] | None = None, **options
    ) -> CompletedProcess[str]:
        """`parity.processes.run` on the stand-in; arguments as of `start`.

        Raises:
            subprocess.TimeoutExpired: it was still running after `limit_s` seconds, and was killed; with its output.
        """
        return processes.run(command, limit_s, env=self._variables(variables), **options)

    def json_of(self, what: str, module: str, *arguments: str, limit_s: float, **options) -> Any:
        """Run a Python module on the stand-in; what it prints last, which is JSON.

        Args:
            what: the name of this work in an error. options: of `environment`.

        Raises:
            InputError: it failed, or was still running after `limit_s` seconds, and was killed.
        """
        command = [sys.executable, "-m", module, *arguments]
        try:
            with tempfile.TemporaryDirectory() as folder:  # for what MindSpore leaves behind
                done = self.run(command, limit_s, self.environment(**options), cwd=folder)
        except TimeoutExpired:
            raise InputError(f"{what}: still compiling or hanging after {limit_s:g} s, and killed") from None
        lines = done.stdout.splitlines() or [""]
        if done.returncode:
            raise InputError(f"{what}: ended with {done.returncode}: {lines[-1]}")
        return json.loads(lines[-1])

    def _variables(self, others: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **self.environment(), **(others or {})}


def missing(device: str) -> str | None:
    """Return why the stand-in cannot be built here, or None."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"the stand-in {device} is for Linux on x86-64"
    if absent := absent_tools():
        return f"the stand-in {device} is built with {', '.join(absent)}, which the PATH does not have"
    if not (plugin := DEVICES[device].plugin()).is_file():
        return f"this MindSpore has no {plugin.name}"
    return None


def build(device: str, cache: Path | None = None) -> StandIn:
    """The stand-in, built in half a minute unless the cache has one of the same sources, MindSpore and compiler. Of a
    device's stand-ins the cache keeps the two that were used last.

    Raises:
        InputError: it cannot be built here.
    """
    if reason := missing(device):
        raise InputError(f"{reason}; it needs Linux on x86-64 with gcc, g++ and binutils")
    cache = cache or cache_folder()
    folder = cache / f"stand-in-{device.lower()}-{_identity(device)}"
    if damaged := folder.is_dir() and not _is_whole(folder):
        say(f"note: {folder}: is damaged or not this project's; rebuilding it", error=True)
        shutil.rmtree(folder)
    new = damaged or not folder.is_dir()
    if new:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            built = Path(made) / "built"
            DEVICES[device].build(built)
            (built / _CONTENT).write_text(_content(built), encoding="utf-8")
            with suppress(OSError):  # another process has built the same meanwhile
                built.rename(folder)
    os.utime(folder)
    if new:
        by_use = sorted(cache.glob(f"stand-in-{device.lower()}-*"), key=lambda path: path.stat().st_mtime)
        for old in by_use[:-2]:
            shutil.rmtree(old, ignore_errors=True)
    return StandIn(device, folder)


def _is_whole(folder: Path) -> bool:
    """Whether a stand-in's files are as they were built."""
    try:
        return (folder / _CONTENT).read_text(encoding="utf-8") == _content(folder)
    except (OSError, InputError, ValueError):
        return False


def _content(folder: Path) -> str:
    """A SHA-256 of all files, by their names, but what Python compiles when it imports some; links by what they lead
    to."""
    digest = hashlib.sha256()
    files = (path for path in folder.rglob("*") if path.parent.name != "__pycache__" and not path.is_dir())
    for path in sorted(path for path in files if path.name != _CONTENT):
        held = os.readlink(path) if path.is_symlink() else file_checksum(path)
        digest.update(f"{path.relative_to(folder)}\0{held}\0".encode())
    return digest.hexdigest()


def _identity(device: str) -> str:
    """Return a hash of everything that a device's stand-in is made of."""
    torch = version("torch") if device == "GPU" and find_spec("torch") else ""
    digest = hashlib.sha256(f"{version('mindspore')} {torch} {do('g++', '--version')} {_CONTENT}".encode())
    parts = [_SOURCES.glob("toolchain.py"), SHARED.glob("*"), DEVICES[device].SOURCES.rglob("*")]
    for source in sorted(path for part in parts for path in part if path.suffix in (".c", ".cc", ".h", ".py")):
        digest.update(f"{source.relative_to(_SOURCES)}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:16]
