"""train.py as msrun starts it, with an accident: the first argument is EVENT:STEP:RANKS, the rest are train.py's.

EVENT: "kill" or "stop" (SIGKILL or SIGTERM to this process) or "broken" (a picture that cannot be decoded), when the
batch of STEP, from 0, is fetched by one of the processes RANKS.
"""

import os
import signal
import sys

from ms_vireid import train
from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run
from ms_vireid.data.batches import TrainingBatches

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}


def prepare(event, step, ranks):
    read = TrainingBatches.read

    def watched(self, index, memory):
        if index == int(step) and os.environ["RANK_ID"] in ranks.split(","):
            if event == "broken":
                raise InputError("cam1/0001.jpg: cannot be decoded")
            os.kill(os.getpid(), SIGNALS[event])
        return read(self, index, memory)

    TrainingBatches.read = watched


if __name__ == "__main__":
    prepare(*sys.argv.pop(1).split(":"))
    run(train.main)
