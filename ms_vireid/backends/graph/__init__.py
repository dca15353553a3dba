"""The backend `graph`: MindSpore's operators compiled into one graph."""

from collections.abc import Collection

from mindspore import nn

from ms_vireid.backends import proven, updates
from ms_vireid.backends.backend import Backend
from ms_vireid.backends.contiguous import ContiguousWeights, WeightLayout
from ms_vireid.backends.graph import ascend, common, gpu
from ms_vireid.backends.reading import code_of_method, qualified, replaced
from ms_vireid.backends.replacing import KeptAsWritten
from ms_vireid.models.layers import LayerNorm
from ms_vireid.optimizers.groups import GroupOptimizer
from ms_vireid.replaceable import Replacement, check_tables

TABLES = {
    "CPU": updates.TABLE | {LayerNorm.construct: Replacement(common.layer_norm)},
    "GPU": gpu.TABLE,
    "Ascend": ascend.TABLE,
}
check_tables("graph", TABLES.values())
ELEMENTWISE = (GroupOptimizer.construct, GroupOptimizer.clip)  # what buffers of weights stand for besides an update


class Graph(Backend):
    compiled = True
    tables = TABLES

    def layout_of(self, optimizer: nn.Cell, separate: Collection[str]) -> WeightLayout:
        """In buffers, if the update is known to be the same for each element of a weight."""
        for key in ELEMENTWISE:
            if reason := proven.difference(self.records, key, code_of_method(optimizer, key.__name__)):
                self.note([KeptAsWritten(qualified(key), reason, "weights are updated one by one")])
                return WeightLayout(optimizer)
        return ContiguousWeights(optimizer, separate) if "update" in replaced(optimizer) else WeightLayout(optimizer)
