"""Run the rows of one of the papers' tables, or of your own, and print our numbers beside the published ones.

Each row is trained and evaluated by train.py in R/TABLE/ROW/seedK. Finished rows are not run again; after Ctrl-C or a
failure, the same command continues. R/TABLE/table.md and .json are written after every run.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import ABLATIONS
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, run

if TYPE_CHECKING:
    from ms_vireid.ablations.runs import TablePlan
    from ms_vireid.ablations.tables import Table


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
    if arguments.list:
        parser.refuse_others(arguments, "--list runs nothing", "--list", "TABLE")
    _ablate(arguments)


def _ablate(arguments: Namespace) -> None:
    with at_once():
        from ms_vireid.ablations.output import Report, listing, require_own
        from ms_vireid.ablations.tables import list_tables, load_table
        from ms_vireid.command.printing import progress

    if arguments.list:
        say(*listing(arguments.table).split("\n"))
        return
    if arguments.table is None:
        raise InputError(f"name a table, or give --list; there are {', '.join(list_tables())}")
    table = load_table(arguments.table)
    plan = _plan(arguments, table)
    trainings = plan.trainings(table.chosen_rows(arguments.rows))
    for one in trainings:
        one.check_weights()
        if keys := one.differs():
            raise InputError(
                f"{one.folder.path}: holds a run with another {keys}; repeat its options, or choose another --output"
            )
    if left_out := [name for name in table.sets if name not in plan.sets and not arguments.demo]:
        say(f"note: without {', '.join(left_out)}, whose folder is not given (--data-root {left_out[0]}=FOLDER)")

    folder = plan.folder
    require_own(folder, trainings)
    failures: dict[str, str] = {}  # by row
    Report.of(plan, trainings, failures).write(folder)  # refuse a folder that cannot be written before training
    try:
        for number, one in enumerate(progress(trainings, len(trainings), plan.name, " runs"), 1):
            say(f"[{number}/{len(trainings)}] {one.row.label}: {one.folder.path}")
            if reason := one.make(arguments.device):
                say(f"{one.row.label}: failed: {reason}; log: {one.log}")
                failures[one.row.name] = reason
            Report.of(plan, trainings, failures).write(folder)
    except KeyboardInterrupt:
        Report.of(plan, trainings, failures).write(folder)
        say(f"stopped; run it again to continue; the table so far is {folder}/table.md", error=True)
        raise
    say(*Report.of(plan, trainings, failures).text().split("\n"))
    say(f"results: {folder}/table.md, table.json")
    if failures:
        sys.exit(1)


def _plan(arguments: Namespace, table: "Table") -> "TablePlan":
    from ms_vireid.ablations.runs import TablePlan
    from ms_vireid.ablations.tables import config_of
    from ms_vireid.config import load_config

    if arguments.trials is not None and "regdb" not in table.sets:
        raise InputError(f"--trials: only RegDB has splits, but {arguments.table} uses {', '.join(table.sets)}")
    files = (config_of(arguments.table, row, name) for row in table.rows if row.config for name in table.sets)
    models = {load_config(file).model.name: None for file in files}
    return TablePlan(
        arguments.table,
        table,
        output=arguments.output or (Path(f"{ABLATIONS}-demo") if arguments.demo else ABLATIONS),
        demo=arguments.demo,
        overrides=arguments.overrides,
        roots=_by_name("--data-root", arguments.data_root, table.roots),
        weights=_by_name("--pretrained", arguments.pretrained, list(models)),
        seeds=arguments.seeds,
        trials=arguments.trials,
    )


def _by_name(option: str, words: list[str] | None, names: list[str]) -> dict[str, str]:
    """The values of words such as NAME=VALUE. VALUE alone is enough where there is only one name."""
    values = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals or name not in names:
            if len(names) > 1:
                raise InputError(f"{option} {word}: say for which of {', '.join(names)}: {option} {names[0]}={word}")
            name, value = names[0], word
        values[name] = value
    return values


if __name__ == "__main__":
    run(main)
