"""The program `graph`: MindSpore's operators compiled into one graph."""

from ms_vireid.devices.replaceable import check_tables
from ms_vireid.programs import reproducible, updates
from ms_vireid.programs.graph import ascend, gpu
from ms_vireid.programs.program import Program

TABLES = {"CPU": reproducible.TABLE | updates.TABLE, "GPU": gpu.TABLE, "Ascend": ascend.TABLE}
check_tables("graph", TABLES.values())


class Graph(Program):
    compiled = True
    tables = TABLES
