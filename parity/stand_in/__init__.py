"""Stand-ins for a GPU and an Ascend: MindSpore's own plugins on libraries that take the place of CUDA and CANN, without
either device.

Device memory is host memory, copies are copies, and what is put on a stream is done at once. What is launched is
computed by its definition, in double precision. So the plugin is MindSpore's: which kernel it has for which operator,
type and shape, what it compiles, which arguments it hands over in which order, and how often it launches, copies and
waits are as on the device. What the device's own arithmetic makes of it, how fast, and in which order what runs side by
side ends, this cannot show.

`python -m parity.stand_in gpu|ascend COMMAND ...` runs a command on one.
"""

from parity.stand_in.build import DEVICES, StandIn, build, missing
from parity.stand_in.counts import Counts, counts, functions, here, read_log

__all__ = ["DEVICES", "Counts", "StandIn", "build", "counts", "functions", "here", "missing", "read_log"]
