"""The program `eager`: MindSpore's operators one at a time (PyNative), for debugging."""

import mindspore as ms
from mindspore import nn

from ms_vireid.devices.replaceable import check_tables
from ms_vireid.programs import reproducible, updates
from ms_vireid.programs.graph import ascend
from ms_vireid.programs.program import Program

# On an Ascend, MindSpore does not pass epsilon to the gradient of `nn.LayerNorm`, and CANN takes 1e-12; the older
# BatchNorm computes a variance as the mean of squares minus the squared mean.
TABLES = {
    "CPU": reproducible.TABLE,
    "GPU": updates.TABLE,
    "Ascend": updates.ASCEND | {nn.LayerNorm.construct: ascend.layer_norm, nn.BatchNorm2d.construct: ascend.batch_norm},
}
check_tables("eager", TABLES.values())


class Eager(Program):
    """Waits for each operator, so that an error names it."""

    tables = TABLES

    def settle(self, model: nn.Cell, cells: list[nn.Cell]) -> None:
        super().settle(model, cells)
        ms.runtime.launch_blocking()  # MindSpore 2.10 may crash on an error in queued operators
