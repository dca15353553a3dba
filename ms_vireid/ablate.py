"""Run the rows of one of the papers' tables, or of your own, and print our numbers beside the published ones.

Each row is trained and evaluated by train.py in R/TABLE/ROW/seedK. Finished rows are not run again; after Ctrl-C or a
failure, the same command continues. R/TABLE/table.md and .json are written after every run.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import ABLATIONS
from ms_vireid.command.running import Parser, add_device, run, work


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("table", nargs="?", metavar="TABLE", help="one that --list shows, or your own .yaml file")
    parser.add_argument(
        "--list", action="store_true", help="show all tables with their rows and published numbers, or TABLE's recipes"
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="run only these rows")
    parser.add_number(
        "--seeds",
        Bounds(1, 100, "each row is trained N times"),
        help="train every row N times, with consecutive seeds (default: the table's)",
    )
    parser.add_number(
        "--trials",
        Bounds(1, 10, "RegDB has no more splits"),
        help="run RegDB's splits 1 to N, with a training for each (default: the table's)",
    )
    parser.add_argument(
        "--demo", action="store_true", help="small models on the synthetic set, in minutes; needs no data"
    )
    add_device(parser)
    parser.add_argument(
        "--data-root",
        action="append",
        metavar="[SET=]D",
        help="folder of the data set; SET= where the table has several",
    )
    parser.add_argument(
        "--pretrained",
        action="append",
        metavar="[MODEL=]F",
        help="ImageNet weights; MODEL= where the table has several",
    )
    parser.add_argument(
        "--output", type=Path, metavar="R", help=f"where to run and write (else {ABLATIONS}, or {ABLATIONS}-demo)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="configuration values for every row")
    arguments = parser.parse_intermixed_args()
    if arguments.rows:  # takes the overrides that follow it
        overrides = [word for word in arguments.rows if "=" in word]
        arguments.rows = [word for word in arguments.rows if "=" not in word]
        if not arguments.rows:
            raise InputError(f"--rows {' '.join(overrides)}: names no row; name some, or leave --rows out")
        arguments.overrides += overrides
    work("ms_vireid.tasks.ablate").main(arguments)


if __name__ == "__main__":
    run(main)
