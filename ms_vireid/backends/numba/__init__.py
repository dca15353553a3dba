"""The backend `numba`: CPU kernels for layers and their gradients, one pass over memory each.

MindSpore's CPU operators take one pass for each step of a function, and some are scalar or run in one thread. Numba
compiles these kernels at their first call and caches the machine code on disk. They serve PyNative in float32; graphs,
mixed precision and other devices use MindSpore's operators.
"""

from mindspore import nn

from ms_vireid.backends.backend import Backend
from ms_vireid.backends.numba import base
from ms_vireid.backends.numba.replacements import TABLE


class Numba(Backend):
    tables = {"CPU": TABLE}  # noqa: RUF012

    def finish_setup(self, model: nn.Cell, cells: list[nn.Cell]) -> None:
        for weight in model.get_parameters():  # aligning the optimiser's states gives no speed-up
            base.align(weight)
