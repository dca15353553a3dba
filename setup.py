"""Builds what launches the CUDA kernels, so that a machine with the wheel needs no C compiler. Optional: where this
fails, `ms_vireid/backends/cuda/build.py` compiles it at the first use."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("ms_vireid/backends/cuda")
specification = spec_from_file_location("declarations", FOLDER / "declarations.py")
declarations = module_from_spec(specification)
specification.loader.exec_module(declarations)
operators = Path("build/operators.c")
operators.parent.mkdir(exist_ok=True)
operators.write_text(declarations.operators_source(), encoding="utf-8")
launcher = Extension(
    "ms_vireid.backends.cuda.launcher",
    [str(operators), *map(str, sorted(FOLDER.glob("*.c")))],
    include_dirs=[str(FOLDER)],
    define_macros=[("SOURCES", f'"{declarations.launcher_digest()}"')],
    extra_compile_args=["-O2", "-fvisibility=hidden"],
    libraries=["dl", "m", "pthread"],
    optional=True,
)
setup(ext_modules=[launcher])
