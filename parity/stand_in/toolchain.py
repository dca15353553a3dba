"""Compiling a stand-in's libraries from C, C++ and what MindSpore's plugins ask for."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import util
from pathlib import Path

from ms_vireid.devices import runtime

TOOLS = ("gcc", "g++", "nm", "c++filt")
SHARED = Path(__file__).parent / "shared"
FLAGS = ("-O2", "-fPIC", f"-I{SHARED}")


def do(*command: str | Path, text: str = "") -> str:
    return subprocess.run(list(map(str, command)), input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


def absent_tools() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def mindspore_folder() -> Path:
    return Path(util.find_spec("mindspore").submodule_search_locations[0])


def compile_source(source: Path, folder: Path, *flags: str) -> Path:
    """The object file in `folder` of a C or C++ source."""
    made = folder / f"{source.stem}.o"
    compiler = ("g++", "-std=c++20") if source.suffix == ".cc" else ("gcc",)
    do(*compiler, *FLAGS, *flags, "-c", source, "-o", made)
    return made


def compile_all(sources: Sequence[Path], folder: Path, *flags: str) -> list[Path]:
    """The same of several, side by side."""
    with ThreadPoolExecutor(len(runtime.cores()) or None) as pool:
        return list(pool.map(lambda source: compile_source(source, folder, *flags), sources))


def link(library: Path, objects: Iterable[Path], *flags: str) -> None:
    do("g++", "-shared", "-o", library, f"-Wl,-soname,{library.name}", *objects, *flags)


def generate(definitions: Sequence[str], source: Path, *flags: str) -> Path:
    """The object file of definitions by macros of stand_in.h."""
    source.write_text("\n".join(['#include "stand_in.h"', *definitions, ""]))
    return compile_source(source, source.parent, *flags)


def symbols(*arguments: str | Path) -> list[str]:
    """The names that nm lists, each with its version where it has one."""
    return [line.split()[-1] for line in do("nm", "-A", *arguments).splitlines()]


def plain(name: str) -> str:
    """Without its version."""
    return name.partition("@")[0]


def demangled(names: Sequence[str]) -> list[str]:
    """Names for a reader: of C++ functions without arguments, as "Cast<float, bool>"."""
    return do("c++filt", "--no-params", text="\n".join(names)).splitlines()
