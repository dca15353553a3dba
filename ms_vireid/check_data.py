"""Check a data set: count identities, cameras and pictures beside the published numbers, and decode every picture.

The exit code is 0 if everything is as published, or consistent where nothing is published, and otherwise 1. A synthetic
set that does not exist yet is drawn first.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.command.running import Parser, add_config, run, work
from ms_vireid.files.writing import check_output


def main() -> None:
    parser = Parser(__doc__)
    add_config(parser)
    parser.add_argument("--json", type=Path, metavar="F", help="also write the result to F")
    arguments = parser.parse_intermixed_args()
    check_output(arguments.json, "--json")
    work("ms_vireid.tasks.check_data").main(arguments)


if __name__ == "__main__":
    run(main)
