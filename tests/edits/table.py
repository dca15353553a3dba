"""Edits by the backends of a device, as lines of JSON. On a stand-in:

python -m parity.stand_in gpu python -m tests.edits.table --device GPU --backend cuda graph
"""

import argparse
import json
from pathlib import Path

from ms_vireid.backends.choosing import OF_DEVICE
from ms_vireid.devices import runtime
from parity.processes import set_up_for_comparisons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--backend", nargs="+", help="default: all of the device but eager, which is the reference")
    parser.add_argument("--share", default="1/1", metavar="I/N", help="every N-th edit from the I-th on")
    parser.add_argument("--match", default="", help="only edits whose name contains this")
    parser.add_argument("--models", action="store_true", help="models of one's own instead")
    parser.add_argument("--output", type=Path, help="append the lines to a file, too")
    arguments = parser.parse_args()
    set_up_for_comparisons(arguments.device)
    runtime.use_full_float32()
    from tests.edits import own_models, runs, sites  # these import mindspore: after the device is set up

    backends = arguments.backend or [name for name in OF_DEVICE[arguments.device] if name != "eager"]
    first, every = map(int, arguments.share.split("/"))
    if arguments.models:
        rows = ({"model": name} | runs.judge(name, None, backends) for name in own_models.MODELS)
    else:
        chosen = [edit for edit in sites.edits() if arguments.match in str(edit)][first - 1 :: every]
        rows = ({"edit": str(edit)} | runs.judge(runs.run_of(edit), edit, backends) for edit in chosen)
    for row in rows:
        line = json.dumps(row)
        print(line, flush=True)
        if arguments.output:
            with arguments.output.open("a") as file:
                file.write(f"{line}\n")


if __name__ == "__main__":
    main()
