"""The program `cuda`: a compiled graph with this project's CUDA kernels, each one pass in place of several operators.

The kernels (`*.cu`) read like their equations; they compute in float32 on float32 or float16. `transformer.c`,
`feature_maps.c` and the other C files launch them for MindSpore, by `launcher.c`; `build.py` compiles both. The Python
files of the same names make them operators with gradients (`operators.py`); `table.py` has all that they replace.
"""

from functools import cache

from mindspore import nn

from ms_vireid.devices.replaceable import Table
from ms_vireid.programs.cuda import build
from ms_vireid.programs.graph import TABLES, Graph


@cache
def compiled_table() -> Table:
    """Compile the kernels, once a process, and return what they replace."""
    build.use_kernels(build.kernel_source())
    from ms_vireid.programs.cuda.table import TABLE  # needs the launcher

    return TABLE


class Cuda(Graph):
    """Raises DeviceError if the kernels cannot be compiled."""

    def __init__(self, amp: str | bool = False):
        super().__init__(amp)
        self._kernels = compiled_table()

    def table_for(self, model: nn.Cell) -> Table:
        from ms_vireid.programs.cuda import feature_maps, transformer  # as above

        excluded = () if transformer.fits(model) else tuple(transformer.TABLE)
        if getattr(model, "recomputed", ()):
            excluded += feature_maps.NOT_RECOMPUTED
        return TABLES["GPU"] | {key: new for key, new in self._kernels.items() if key not in excluded}
