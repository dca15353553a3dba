"""Which PyTorch is compared with."""

import runpy
from importlib.util import find_spec
from pathlib import Path


def torch_build() -> str:
    """Return PyTorch's version and what it is built for, such as "2.13.0+cu130 (built for CUDA 13.0)", without its
    import, which takes seconds."""
    build = runpy.run_path(str(Path(find_spec("torch").origin).with_name("version.py")))
    device = f"CUDA {build['cuda']}" if build["cuda"] else "CPUs"
    return f"{build['__version__']} (built for {device})"
