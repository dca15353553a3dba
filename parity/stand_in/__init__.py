"""A stand-in for a GPU: MindSpore's own GPU plugin on libraries that take CUDA's place, without a GPU.

Device memory is host memory and copies are copies; kernels, products and convolutions do nothing and succeed. So values
mean nothing. The plugin is MindSpore's: which kernel it has for which operator, type and shape, what it compiles, and
how often it launches, copies and waits are as on a GPU. What a real kernel computes or refuses, this cannot show.

`python -m parity.stand_in COMMAND ...` runs a command on it.
"""

from parity.stand_in.build import StandIn, build, missing
from parity.stand_in.counts import Counts, counts, functions, read_log

__all__ = ["Counts", "StandIn", "build", "counts", "functions", "missing", "read_log"]
