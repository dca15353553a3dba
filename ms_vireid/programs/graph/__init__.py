"""The program `graph`: MindSpore's operators compiled into one graph."""

import mindspore as ms
from mindspore import nn

from ms_vireid.programs import optimizers, reproducible
from ms_vireid.programs.graph import ascend, gpu
from ms_vireid.programs.program import Program


class Graph(Program):
    compiled = True
    not_recomputed = gpu.NOT_RECOMPUTED

    def __init__(self, amp: str | bool = False):
        super().__init__(amp)
        self.table = TABLES[ms.get_context("device_target")]

    def prepare(self, model: nn.Cell, *others: nn.Cell | None) -> None:
        if any(getattr(cell, "recompute_blocks", False) for _, cell in model.cells_and_names()):
            self.table = {key: new for key, new in self.table.items() if key not in self.not_recomputed}
        super().prepare(model, *others)


TABLES = {"CPU": reproducible.TABLE | optimizers.TABLE, "GPU": gpu.TABLE, "Ascend": ascend.TABLE}
