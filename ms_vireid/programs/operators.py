"""The program `operators`: MindSpore's operators one by one (PyNative), for debugging."""

import mindspore as ms
from mindspore import nn

from ms_vireid.programs import optimizers, reproducible
from ms_vireid.programs.graph import ascend
from ms_vireid.programs.program import Program


class Operators(Program):
    """An error names its operator: each is waited for."""

    def __init__(self, amp: str | bool = False):
        super().__init__(amp)
        device = ms.get_context("device_target")
        self.table = TABLES[device]

    def settle(self, model: nn.Cell, cells: list[nn.Cell]) -> None:
        super().settle(model, cells)
        ms.runtime.launch_blocking()  # from queued operators MindSpore 2.10 may crash instead


# MindSpore hands the gradient of `nn.LayerNorm` to an Ascend without its epsilon, and CANN takes 1e-12; the older
# BatchNorm takes a variance for the mean of squares less the squared mean.
TABLES = {
    "CPU": reproducible.TABLE,
    "GPU": optimizers.TABLE,
    "Ascend": optimizers.ASCEND
    | {nn.LayerNorm.construct: ascend.layer_norm, nn.BatchNorm2d.construct: ascend.batch_norm},
}
