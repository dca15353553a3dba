"""The backend `eager`: MindSpore's operators one at a time (PyNative). It replaces nothing: models, losses and
optimisers are computed as they are written."""

import mindspore as ms
from mindspore import nn

from ms_vireid.backends.backend import Backend


class Eager(Backend):
    """Waits for each operator, so that an error names it."""

    tables = {"CPU": {}, "GPU": {}, "Ascend": {}}  # noqa: RUF012

    def finish_setup(self, model: nn.Cell, cells: list[nn.Cell]) -> None:
        super().finish_setup(model, cells)
        ms.runtime.launch_blocking()  # MindSpore 2.10 may crash on an error in queued operators
