"""The backend `eager`: MindSpore's operators one at a time (PyNative). It replaces nothing: models, losses and
optimisers are computed as they are written."""

from collections.abc import Collection

import mindspore as ms
from mindspore import nn

from ms_vireid.backends.backend import Backend
from ms_vireid.backends.contiguous import WeightLayout


class Eager(Backend):
    """Waits for each operator, so that an error names it."""

    tables = {"CPU": {}, "GPU": {}, "Ascend": {}}  # noqa: RUF012

    def finish_setup(self, model: nn.Cell, cells: list[nn.Cell]) -> None:
        super().finish_setup(model, cells)
        ms.runtime.launch_blocking()  # MindSpore 2.10 may crash on an error in queued operators

    def layout_of(self, optimizer: nn.Cell, separate: Collection[str]) -> WeightLayout:
        return WeightLayout(optimizer)
