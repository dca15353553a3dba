"""Run the rows of one of the papers' tables, or of your own, and print our numbers beside the published ones.

A row is trained and evaluated by train.py, in R/TABLE/ROW/seedK. Complete rows are not run again, and after Ctrl-C or a
failure the same command goes on. R/TABLE/table.md and .json are written after every run.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, run

if TYPE_CHECKING:
    from ms_vireid.ablations.output import Report
    from ms_vireid.ablations.runs import Plan, Training
    from ms_vireid.ablations.tables import Row, Table

OUTPUT = Path("runs/ablations")


def main() -> None:
    arguments = _parse()

    from ms_vireid.ablations.output import require_own
    from ms_vireid.ablations.tables import list_tables, load_table
    from ms_vireid.command.progress import progress

    if arguments.list:
        say(*_listing(arguments.table).split("\n"))
        return
    if arguments.table is None:
        raise InputError(f"name a table, or give --list; there are {', '.join(list_tables())}")
    table = load_table(arguments.table)
    plan = _plan(arguments, table)
    trainings = plan.trainings(_chosen_rows(arguments.rows, table))
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
    _report(plan, trainings, failures).write(folder)  # now: a folder that cannot be written is refused before training
    try:
        for number, one in enumerate(progress(trainings, len(trainings), plan.name, " runs"), 1):
            say(f"[{number}/{len(trainings)}] {one.row.label}: {one.folder.path}")
            if reason := one.make(arguments.device):
                say(f"{one.row.label}: failed: {reason}; log: {one.log}")
                failures[one.row.name] = reason
            _report(plan, trainings, failures).write(folder)
    except KeyboardInterrupt:
        _report(plan, trainings, failures).write(folder)
        say(f"stopped; the same command goes on; the table so far is {folder}/table.md", error=True)
        raise
    say(*_report(plan, trainings, failures).text().split("\n"))
    say(f"results: {folder}/table.md, table.json")
    if failures:
        sys.exit(1)


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("table", nargs="?", metavar="TABLE", help="one that --list shows, or your own .yaml file")
    parser.add_argument(
        "--list", action="store_true", help="show all tables with their rows and published numbers, or TABLE's recipes"
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="run only these rows")
    parser.add_number("ablate --seeds", help="train every row N times, with consecutive seeds (default: the table's)")
    parser.add_number("ablate --trials", help="run RegDB's splits 1 to N, a training each (default: the table's)")
    parser.add_argument(
        "--demo", action="store_true", help="small models on the synthetic set, in minutes; no data is needed"
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
        "--output", type=Path, metavar="R", help=f"where to run and write (else {OUTPUT}, or {OUTPUT}-demo)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="configuration values for every row")
    arguments = parser.parse_intermixed_args()
    if arguments.rows:  # takes the overrides that follow it
        overrides = [word for word in arguments.rows if "=" in word]
        arguments.rows = [word for word in arguments.rows if "=" not in word]
        if not arguments.rows:
            raise InputError(f"--rows {' '.join(overrides)}: names no row; name some, or leave --rows out")
        arguments.overrides += overrides
    return arguments


def _plan(arguments: argparse.Namespace, table: "Table") -> "Plan":
    from ms_vireid.ablations.runs import Plan
    from ms_vireid.ablations.tables import config_of
    from ms_vireid.config import load_config

    if arguments.trials is not None and "regdb" not in table.sets:
        raise InputError(f"--trials: RegDB alone has splits, and {arguments.table} is on {', '.join(table.sets)}")
    files = (config_of(arguments.table, row, name) for row in table.rows if row.config for name in table.sets)
    models = {load_config(file).model.name: None for file in files}
    return Plan(
        arguments.table,
        table,
        output=arguments.output or (Path(f"{OUTPUT}-demo") if arguments.demo else OUTPUT),
        demo=arguments.demo,
        overrides=arguments.overrides,
        roots=_by_name("--data-root", arguments.data_root, list(table.sets)),
        weights=_by_name("--pretrained", arguments.pretrained, list(models)),
        seeds=arguments.seeds,
        trials=arguments.trials,
    )


def _by_name(option: str, words: list[str] | None, names: list[str]) -> dict[str, str]:
    """Values given as NAME=VALUE, or as VALUE where there is one name only."""
    values = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals or name not in names:
            if len(names) > 1:
                raise InputError(f"{option} {word}: say for which of {', '.join(names)}: {option} {names[0]}={word}")
            name, value = names[0], word
        values[name] = value
    return values


def _chosen_rows(names: list[str] | None, table: "Table") -> "list[Row]":
    if names is None:
        return list(table.rows)
    ours = [row.name for row in table.rows if row.config]
    for name in names:
        if name not in ours:
            raise InputError(f"--rows {name}: the table has no row of that name to run; it has {', '.join(ours)}")
    return [row for row in table.rows if row.name in names]


def _report(plan: "Plan", trainings: "list[Training]", failures: dict[str, str]) -> "Report":
    """The whole table as it stands on disk: rows that were not asked for show what they have."""
    from ms_vireid.ablations.output import Report, row_result

    asked = {one.row.name for one in trainings}
    results = []
    for row in plan.table.rows:
        own = [one for one in trainings if one.row is row] if row.name in asked else plan.fitting_trainings(row)
        results.append(row_result(plan.columns, row, own, failures.get(row.name)))
    return Report(plan.name, plan.table, plan.columns, results, plan.demo, plan.notes(trainings))


def _listing(name: str | None) -> str:
    """All tables with their published numbers; of one, the recipes as well."""
    from ms_vireid.ablations.output import format_published
    from ms_vireid.ablations.tables import config_of, list_tables, load_table

    if name is None:
        return "\n\n".join(format_published(each, load_table(each)) for each in list_tables())
    table = load_table(name)
    lines = [format_published(name, table), "", "recipes, for train.py:"]
    for row in table.rows:
        for data_set, overrides in table.sets.items():
            if row.config:
                words = [str(config_of(name, row, data_set)), *row.overrides, *overrides]
                lines.append(f"{row.name} on {data_set}: --config " + shlex.join(words))
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
