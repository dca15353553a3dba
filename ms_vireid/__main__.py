"""All commands under one name: `ms-vireid train ...`, or `python -m ms_vireid train ...`."""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import argparse
import importlib
import sys

from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, run, work

COMMANDS = ("train", "evaluate", "ablate", "extract", "retrieve", "visualize", "export", "report")
COMMANDS += ("check-data", "convert")
ELSEWHERE = {"convert": "parity.convert"}  # imports both frameworks


class _Version(argparse.Action):
    """Print the versions in use and the devices, line by line."""

    def __call__(self, parser: argparse.ArgumentParser, *_) -> None:
        for line in work("ms_vireid.devices.cpu").installation():
            say(line)
        parser.exit()


def main() -> None:
    run(_main)


def _main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("command", choices=COMMANDS, help="each has its own --help")
    parser.add_argument("--version", action=_Version, nargs=0, help="show versions and devices, for a report of a bug")
    name = parser.parse_args(sys.argv[1:2]).command
    module = importlib.import_module(ELSEWHERE.get(name, f"ms_vireid.{name.replace('-', '_')}"))
    sys.argv = [f"{sys.argv[0]} {name}", *sys.argv[2:]]
    module.main()


if __name__ == "__main__":
    main()
