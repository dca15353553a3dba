"""Count own kernels with their tensors: on the stand-in GPU, a launch knows addresses alone."""

import re
from pathlib import Path

from parity.stand_in.gpu import SOURCES
from parity.stand_in.toolchain import generate, link, symbols

_OPERATOR = re.compile(r"operator_\d+")  # among the functions of the launcher


def telling(launcher: Path, folder: Path) -> Path:
    """Make a library in `folder` that has the launcher's operators, which tell the stand-in their tensors first."""
    operators = [name for name in symbols("--dynamic", "--defined-only", launcher) if _OPERATOR.fullmatch(name)]
    flags = f'-DLAUNCHER="{launcher}"', "-include", str(SOURCES / "tensors.h")
    made = generate([f"TELLS({name})" for name in operators], folder / "tensors.c", *flags)
    link(library := folder / "tensors.so", [made], "-ldl")
    return library
