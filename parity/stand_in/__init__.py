"""Stand-ins for a GPU and an Ascend: MindSpore's own plugins on libraries that replace CUDA and CANN, without either
device.

Device memory is host memory, copies are copies, and work put on a stream is done at once. Each launch is computed by
its definition, in double precision. As the plugin is MindSpore's own, all of this is as on the device: which kernel it
has for which operator, type and shape, what it compiles, which arguments it hands over in which order, and how often
it launches, copies and waits. It cannot show what the device's own arithmetic gives, how fast that is, or in which
order concurrent work ends.

`python -m parity.stand_in gpu|ascend COMMAND ...` runs a command on one.
"""

from parity.stand_in.build import DEVICES, StandIn, build, missing
from parity.stand_in.counts import Counts, counts, functions, here, read_log

__all__ = ["DEVICES", "Counts", "StandIn", "build", "counts", "functions", "here", "missing", "read_log"]
