"""Builds the stand-in's libraries from what MindSpore's GPU plugin asks for, and runs commands on them."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from parity import processes
from parity.stand_in.counts import CUDA_OPS, SONAMES

SOURCES = Path(__file__).parent
TOOLS = ("gcc", "g++", "nm", "c++filt")
PLUGIN = "libmindspore_gpu.so.11.6"
RELEASE = "11.8"  # of CUDA: one of those for which MindSpore loads that plugin
MEMORY = 80 * 2**30  # bytes

# Functions that make or end what a pointer stands for. (cuFFT's handles are numbers.)
_HANDLE = re.compile(r"(cuda(Stream|Event)|cublas|cudnn|curand|cusolverDn|cusparse)(Create|Destroy)")
_COMPARISON = re.compile(r"BinaryOpWithBroadcastCudaFunc<.*, bool>")


@dataclass(frozen=True)
class StandIn:
    """A stand-in that is built. folder: holds lib/ with the libraries, and cuda/bin/nvcc, which names their release."""

    folder: Path

    def environment(self, log: Path | None = None, memory: int = MEMORY) -> dict[str, str]:
        """The environment variables that a process on it needs.

        Args:
            log: file to which each process appends, when it ends, a line "calls name" for every function it has called.
            memory: of the device, in bytes. Pages that nobody writes cost the host nothing.
        """
        libraries = self.folder / "lib"
        others = os.environ.get("LD_LIBRARY_PATH")
        variables = {
            "CUDA_HOME": str(self.folder / "cuda"),
            "LD_LIBRARY_PATH": f"{libraries}:{others}" if others else str(libraries),
            # Else the plugin would find MindSpore's own, by its RPATH.
            "LD_PRELOAD": str(libraries / CUDA_OPS),
            "STAND_IN_MEMORY": str(memory),
        }
        return variables | ({"STAND_IN_LOG": str(log)} if log else {})

    def start(
        self, command: Sequence[str], variables: Mapping[str, str] | None = None, **options
    ) -> AbstractContextManager[subprocess.Popen]:
        """`parity.processes.session` on the stand-in.

        Args:
            variables: of the environment, to be set besides `environment()`'s. options: of `subprocess.Popen`.
        """
        return processes.session(command, env=self._variables(variables), **options)

    def run(
        self, command: Sequence[str], limit_s: float, variables: Mapping[str, str] | None = None, **options
    ) -> subprocess.CompletedProcess[str]:
        """`parity.processes.run` on the stand-in; arguments as of `start`.

        Raises:
            subprocess.TimeoutExpired: it was still running after `limit_s` seconds, and was killed; with its output.
        """
        return processes.run(command, limit_s, env=self._variables(variables), **options)

    def _variables(self, others: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **self.environment(), **(others or {})}


def missing() -> str | None:
    """Why the stand-in cannot be built here; None if it can."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "the stand-in GPU is for Linux on x86-64"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"the stand-in GPU is built with {', '.join(absent)}, which the PATH does not have"
    if not (_plugins() / PLUGIN).is_file():
        return f"this MindSpore has no {PLUGIN}"
    return None


def build(folder: Path) -> StandIn:
    """Build the stand-in in an empty folder, in a few seconds.

    Raises:
        RuntimeError: it cannot be built here.
    """
    if reason := missing():
        raise RuntimeError(reason)
    for part in ("lib", "objects", "cuda/bin"):
        (folder / part).mkdir(parents=True)
    compiler = folder / "cuda" / "bin" / "nvcc"
    compiler.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {RELEASE}, V{RELEASE}"\n')
    compiler.chmod(0o755)

    asked = _symbols("--dynamic", "--undefined-only", _plugins() / PLUGIN)
    kernels = {_plain(name) for name in _symbols("--dynamic", "--defined-only", _plugins() / "gpu" / CUDA_OPS)}
    for soname in SONAMES:
        if soname == CUDA_OPS:
            names = [name for name in asked if _plain(name) in kernels]
        elif soname == "libcuda.so.1":  # the only one without versions
            names = [name for name in asked if re.fullmatch(r"cu[A-Z]\w+", name)]
        else:
            names = [name for name in asked if name.endswith(f"@{soname}")]
        _build_library(folder, soname, [_plain(name) for name in names])
    return StandIn(folder)


def _build_library(folder: Path, soname: str, names: list[str]) -> None:
    """Compile the source of that name, if there is one, and a definition of every other function that is needed."""
    name = soname.split(".")[0].removeprefix("lib")
    objects = [_compile(SOURCES / "counters.c", folder / "objects" / "counters.o")]
    written = set()
    for source in SOURCES.glob(f"{name}.c*"):
        objects.append(_compile(source, folder / "objects" / f"{name}.o"))
        written = set(_symbols("--defined-only", objects[-1]))
    generated = folder / "objects" / f"{name}-others.c"
    others = [other for other in names if other not in written]
    lines = [_definition(other, label) for other, label in zip(others, _labels(others), strict=True)]
    generated.write_text("\n".join(['#include "stand_in.h"', *lines, ""]))
    objects.append(_compile(generated, generated.with_suffix(".o")))

    versions = folder / "objects" / f"{name}.versions"
    versions.write_text(f"{soname} {{ global: *; }};\n")
    versioned = [] if soname in (CUDA_OPS, "libcuda.so.1") else [f"-Wl,--version-script={versions}"]
    _do("g++", "-shared", "-o", folder / "lib" / soname, f"-Wl,-soname,{soname}", *versioned, *objects)


def _definition(name: str, label: str) -> str:
    """A function that counts its calls under `label` and succeeds, in a macro of stand_in.h."""
    kind = "SUCCEEDS"
    if handle := _HANDLE.match(label):
        kind = {"Create": "CREATES", "Destroy": "DESTROYS"}[handle[3]]
    elif _COMPARISON.fullmatch(label):
        kind = "COMPARES"
    return f'{kind}({name}, "{label}")'


def _labels(names: list[str]) -> list[str]:
    """Names for a reader: of C++ functions without arguments, as "Cast<float, bool>"."""
    return _do("c++filt", "--no-params", text="\n".join(names)).splitlines()


def _compile(source: Path, made: Path) -> Path:
    compiler = "g++" if source.suffix == ".cc" else "gcc"
    _do(compiler, "-O1", "-fPIC", f"-I{SOURCES}", "-c", source, "-o", made)
    return made


def _symbols(*arguments: str | Path) -> list[str]:
    """The names that nm lists, each with its version where it has one."""
    return [line.split()[-1] for line in _do("nm", *arguments).splitlines()]


def _plain(name: str) -> str:
    return name.partition("@")[0]


def _do(*command: str | Path, text: str = "") -> str:
    return subprocess.run(list(map(str, command)), input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


def _plugins() -> Path:
    return Path(util.find_spec("mindspore").submodule_search_locations[0]) / "lib" / "plugin"
