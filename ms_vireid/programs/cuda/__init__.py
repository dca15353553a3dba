"""The program `cuda`: a compiled graph with this project's CUDA kernels, each one pass in place of several operators.

The kernels (`*.cu`) read like their equations; they compute in float32 on float32 or float16. `launcher.c` launches
them for MindSpore; `build.py` compiles both; `operators.py` makes them operators with gradients, and names the methods
that they replace.
"""

from ms_vireid.programs.graph import Graph


class Cuda(Graph):
    """Raises DeviceError if the kernels cannot be compiled."""

    not_recomputed = ()

    def __init__(self, amp: str | bool = False):
        super().__init__(amp)
        from ms_vireid.programs.cuda import operators  # compiles them

        self.table = self.table | operators.TABLE
