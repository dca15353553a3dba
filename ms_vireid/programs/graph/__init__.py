"""The program `graph`: MindSpore's operators compiled into one graph."""

from ms_vireid.devices.replaceable import Replacement, check_tables
from ms_vireid.models.layers import LayerNorm
from ms_vireid.programs import updates
from ms_vireid.programs.graph import ascend, common, gpu
from ms_vireid.programs.program import Program

TABLES = {
    "CPU": updates.TABLE | {LayerNorm.construct: Replacement(common.layer_norm)},
    "GPU": gpu.TABLE,
    "Ascend": ascend.TABLE,
}
check_tables("graph", TABLES.values())


class Graph(Program):
    compiled = True
    tables = TABLES
