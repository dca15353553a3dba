"""Run a command on a stand-in: python -m parity.stand_in gpu python ms_vireid/train.py --device GPU ...

What it is and shows: parity/stand_in/__init__.py. The exit code is the command's.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, run
from parity.stand_in.build import build
from parity.stand_in.counts import read_log


def main() -> None:
    parser = Parser(__doc__)
    parser.add_number(
        "--memory",
        Bounds(0.001, 1024.0, "GiB, several times any accelerator's"),
        metavar="GIB",
        help="of the device (default: a large one's)",
    )
    parser.add_argument("--no-values", action="store_true", help="compute nothing, for counts at full size")
    parser.add_argument("--planted", default="", metavar="ERROR", help="an error on the way to the device, by its name")
    parser.add_argument("--calls", action="store_true", help="then print how often each function was called")
    parser.add_argument("device", choices=("gpu", "ascend"))
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")
    arguments = parser.parse_args()
    if not arguments.command:
        raise InputError("no command is given; see --help")
    if shutil.which(arguments.command[0]) is None:
        raise InputError(f"{arguments.command[0]}: no such command")
    stand_in = build({"gpu": "GPU", "ascend": "Ascend"}[arguments.device])
    with tempfile.TemporaryDirectory(prefix="ms_vireid-stand-in-") as folder:
        log = Path(folder) / "calls"
        memory = int(arguments.memory * 2**30) if arguments.memory else None
        variables = stand_in.environment(
            log if arguments.calls else None, memory, not arguments.no_values, arguments.planted
        )
        with stand_in.start(arguments.command, variables) as process:
            code = process.wait()
        if arguments.calls and log.exists():
            for name, calls in read_log(log).most_common():
                print(f"{calls:10} {name}")
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    run(main)
