"""All commands behind one name: `ms-vireid train ...`, or `python -m ms_vireid train ...`."""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import importlib
import sys

from ms_vireid.command.running import Parser, run

COMMANDS = ("train", "evaluate", "ablate", "extract", "retrieve", "visualize", "export", "report")
COMMANDS += ("check-data", "convert")
ELSEWHERE = {"convert": "parity.convert"}  # imports both frameworks


def main() -> None:
    run(_main)


def _main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("command", choices=COMMANDS, help="each has its own --help")
    name = parser.parse_args(sys.argv[1:2]).command
    module = importlib.import_module(ELSEWHERE.get(name, f"ms_vireid.{name.replace('-', '_')}"))
    sys.argv = [f"{sys.argv[0]} {name}", *sys.argv[2:]]
    module.main()


if __name__ == "__main__":
    main()
