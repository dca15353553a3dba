"""The program `cuda`: a compiled graph with this project's CUDA kernels, each one pass in place of several operators.

The kernels (`*.cu`) read like their equations; they compute in float32 on float32 or float16. Each says beside it what
it takes, gives, and how it is launched (`OPERATOR`): from that `declarations.py` generates its arguments and the C
function that launches it, which `build.py` compiles, and `operators.py` makes a MindSpore operator with its gradient.
Modules by topic call these; `table.py` has all that they replace.
"""

from collections.abc import Callable
from functools import cache

from mindspore import Tensor, nn

from ms_vireid.devices.replaceable import Table
from ms_vireid.models.base import ReIDModel
from ms_vireid.programs.cuda import build, declarations, feature_maps
from ms_vireid.programs.cuda.table import TABLE
from ms_vireid.programs.graph import TABLES, Graph


@cache
def use_kernels() -> None:
    """Compile the kernels, once a process."""
    build.use_kernels(declarations.kernel_source())


class Cuda(Graph):
    """Raises DeviceError if the kernels cannot be compiled."""

    def __init__(self, amp: str | bool = False):
        super().__init__(amp)
        use_kernels()

    def table_for(self, model: nn.Cell) -> Table:
        return TABLES["GPU"] | TABLE | (feature_maps.RECOMPUTED if getattr(model, "recomputed", ()) else {})

    def from_outside(self, cell: nn.Cell) -> Callable:
        if isinstance(cell, ReIDModel) or not feature_maps.takes_maps(cell):
            return cell
        pictures = getattr(cell, "has_stem", False)

        def call(*inputs):
            turned = ()
            for value in inputs:
                is_map = isinstance(value, Tensor) and value.ndim == 4 and not pictures
                turned += (feature_maps.last(value) if is_map else value,)
            output = cell(*turned)
            return feature_maps.first(output) if output.ndim == 4 else output

        return call
