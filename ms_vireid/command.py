"""What all commands share: one-line errors, exit codes, and the arguments that several take."""

import argparse
import sys
from collections.abc import Callable

from ms_vireid.errors import InputError

DEVICES = ("auto", "CPU", "GPU", "Ascend")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; `--help` shows defaults."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def error(self, message: str):
        raise InputError(f"{message}; see --help")


def add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to run; auto takes Ascend, else GPU, else CPU"
    )


def add_overrides(parser: Parser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values, for example optimizer.lr=1e-4"
    )


def run(main: Callable[[], None]) -> None:
    """Run a command: exit code 0; 2 and one line for a user's mistake; 130 when interrupted."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
