"""The backend `cuda`: a compiled graph with this project's CUDA kernels, each one pass in place of several operators.

The kernels (`*.cu`) read like their equations; they compute in float32 on float32 or float16. Each says beside it what
it takes, gives, and how it is launched (`OPERATOR`): from that `declarations.py` generates its arguments and the C
function that launches it, which `build.py` compiles, and `operators.py` makes a MindSpore operator with its gradient.
Modules by topic call these; `replacements.py` has all that they replace.
"""

from functools import cache

from mindspore import nn

from ms_vireid.backends.cuda import build, declarations
from ms_vireid.backends.cuda.replacements import TABLE
from ms_vireid.backends.graph import TABLES, Graph
from ms_vireid.replaceable import Table


@cache
def use_kernels() -> None:
    """Compile the kernels, once a process."""
    build.use_kernels(declarations.kernel_source())


class Cuda(Graph):
    """Raises DeviceError if the kernels cannot be compiled."""

    tables = {"GPU": TABLES["GPU"] | TABLE}  # noqa: RUF012

    def __init__(self, amp: str | bool = False):
        super().__init__(amp)
        use_kernels()
