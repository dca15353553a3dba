"""The program `cuda`: a compiled graph with this project's CUDA kernels, each one pass in place of several operators.

The kernels (`*.cu`) read like their equations; they compute in float32 on float32 or float16. `transformer.c`,
`feature_maps.c` and the other C files launch them for MindSpore, by `launcher.c`; `build.py` compiles both. The Python
files of the same names make them operators with gradients (`operators.py`); `table.py` has all that they replace.
"""

from mindspore import nn

from ms_vireid.programs.graph import TABLES, Graph


class Cuda(Graph):
    """Raises DeviceError if the kernels cannot be compiled."""

    not_recomputed = ()

    def __init__(self, amp: str | bool = False):
        super().__init__(amp)
        from ms_vireid.programs.cuda.table import TABLE  # compiles the kernels

        self.table = self.table | TABLE

    def prepare(self, model: nn.Cell, *others: nn.Cell | None) -> None:
        from ms_vireid.programs.cuda import feature_maps, transformer  # as above

        excluded = ()
        if not transformer.fits(model):
            excluded += tuple(transformer.TABLE)
            self.not_recomputed = Graph.not_recomputed
        if getattr(model, "recomputed", ()):
            excluded += feature_maps.NOT_RECOMPUTED
        self.table = TABLES["GPU"] | {key: new for key, new in self.table.items() if key not in excluded}
        super().prepare(model, *others)
