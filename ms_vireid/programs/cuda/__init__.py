"""The program `cuda`: this project's CUDA kernels within a compiled graph on a GPU, several operators of MindSpore's in
one pass.

The kernels (`*.cu`) read as the equations that they compute, in float32, on float32 or float16. `launcher.c` launches
them for MindSpore; `build.py` compiles both; `operators.py` makes operators with gradients of them, and names the
methods that they take the place of.
"""

from ms_vireid.programs.graph import Graph


class Cuda(Graph):
    """Raises DeviceError where the kernels cannot be compiled."""

    not_recomputed = ()

    def __init__(self, amp: str | bool = False):
        super().__init__(amp)
        from ms_vireid.programs.cuda import operators  # which compiles them

        self.table = self.table | operators.TABLE
