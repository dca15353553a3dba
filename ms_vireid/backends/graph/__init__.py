"""The backend `graph`: MindSpore's operators compiled into one graph."""

from ms_vireid.backends import updates
from ms_vireid.backends.backend import Backend
from ms_vireid.backends.graph import ascend, common, gpu
from ms_vireid.models.layers import LayerNorm
from ms_vireid.replaceable import Replacement, check_tables

TABLES = {
    "CPU": updates.TABLE | {LayerNorm.construct: Replacement(common.layer_norm)},
    "GPU": gpu.TABLE,
    "Ascend": ascend.TABLE,
}
check_tables("graph", TABLES.values())


class Graph(Backend):
    compiled = True
    tables = TABLES
