"""Builds what launches the CUDA kernels, so that a machine with the wheel needs no C compiler. Optional: where this
fails, `ms_vireid/programs/cuda/build.py` compiles it at the first use."""

import hashlib
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("ms_vireid/programs/cuda")
SOURCES = sorted(FOLDER.glob("*.[ch]"))
digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()
launcher = Extension(
    "ms_vireid.programs.cuda.launcher",
    [str(path) for path in SOURCES if path.suffix == ".c"],
    define_macros=[("SOURCES", f'"{digest}"')],
    extra_compile_args=["-O2", "-fvisibility=hidden"],
    libraries=["dl", "m", "pthread"],
    optional=True,
)
setup(ext_modules=[launcher])
