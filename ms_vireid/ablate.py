"""Run the rows of one of the papers' tables and print our numbers beside the published ones.

A row is trained and evaluated by train.py, in R/TABLE/ROW/seedK. Complete rows are not run again, and after Ctrl-C or a
failure the same command goes on. R/TABLE/table.md, .csv and .json are written after every run.
"""

import argparse
import shlex
import sys
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from ms_vireid.ablations.commands import handing_stops_on, side_by_side
from ms_vireid.ablations.output import Report, format_published
from ms_vireid.ablations.results import row_result
from ms_vireid.ablations.runs import Options, Plan, Run, make
from ms_vireid.ablations.tables import Row, Table, config_of, list_tables, load_table
from ms_vireid.command.errors import InputError
from ms_vireid.command.progress import progress
from ms_vireid.command.running import Parser, add_device, check_least, run
from ms_vireid.config import load_config
from ms_vireid.devices import runtime

OUTPUT = Path("runs/ablations")
REGDB_TRIALS = 10
MOST_DEMOS = 4  # side by side: each takes about 1 GB of memory


def main() -> None:
    arguments = _parse()
    if arguments.list:
        print(_listing(arguments.table))
        return
    if arguments.table is None:
        raise InputError(f"name a table, or give --list; there are {', '.join(list_tables())}")
    table = load_table(arguments.table)
    plan = Plan(arguments.table, table, _options(arguments, table))
    runs = plan.runs(_chosen_rows(arguments.rows, table))
    _refuse_other_recipes(plan, runs)
    if left_out := [name for name in table.sets if name not in plan.sets and not arguments.demo]:
        print(f"note: without {', '.join(left_out)}, whose folder is not given (--data-root {left_out[0]}=FOLDER)")

    folder = plan.options.output / plan.name
    processes = _processes(arguments, len(runs))
    failures: dict[str, str] = {}  # by row
    _report(plan, runs, failures).write(folder)  # now: a folder that cannot be written is refused before training

    def made(one: Run) -> str | None:
        tqdm.write(f"[{runs.index(one) + 1}/{len(runs)}] {one.row.label}: {one.folder.path}")
        title = f"{one.row.name} {one.folder.path.name} | " if processes > 1 else ""
        return make(one, plan, arguments.device, title)

    try:
        with handing_stops_on(), closing(side_by_side(made, runs, processes)) as done:
            for one, reason in progress(done, len(runs), plan.name, " runs"):
                if reason:
                    tqdm.write(f"{one.row.label}: failed: {reason}; log: {one.folder.path / 'log.txt'}")
                    failures[one.row.name] = reason
                _report(plan, runs, failures).write(folder)
    except KeyboardInterrupt:
        _report(plan, runs, failures).write(folder)
        print(f"stopped; the same command goes on; the table so far is {folder}/table.md", file=sys.stderr)
        raise
    print(_report(plan, runs, failures).text())
    print(f"results: {folder}/table.md, table.csv, table.json")
    if failures:
        sys.exit(1)


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("table", nargs="?", metavar="TABLE", help="a table that --list shows, such as pmt-table-3")
    parser.add_argument(
        "--list", action="store_true", help="show all tables with their rows and published numbers, or TABLE's recipes"
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="run only these rows")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="train every row N times, with consecutive seeds"
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", help="run RegDB's splits 1 to N, a training each (default: data.trial)"
    )
    parser.add_argument(
        "--demo", action="store_true", help="small models on the synthetic set, in minutes; no data is needed"
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help=f"trainings side by side, sharing the cores (default: 1; --demo: one a core, up to {MOST_DEMOS})",
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
        arguments.overrides += [word for word in arguments.rows if "=" in word]
        arguments.rows = [word for word in arguments.rows if "=" not in word]
    check_least(arguments, seeds=1, trials=1, processes=1)
    if arguments.trials is not None and arguments.trials > REGDB_TRIALS:
        raise InputError(f"--trials {arguments.trials}: must be at most {REGDB_TRIALS}")
    return arguments


def _options(arguments: argparse.Namespace, table: Table) -> Options:
    if arguments.trials is not None and "regdb" not in table.sets:
        raise InputError(f"--trials: RegDB alone has splits, and {arguments.table} is on {', '.join(table.sets)}")
    files = (config_of(arguments.table, row, name) for row in table.rows if row.config for name in table.sets)
    models = {load_config(file).model.name: None for file in files}
    return Options(
        output=arguments.output or (Path(f"{OUTPUT}-demo") if arguments.demo else OUTPUT),
        demo=arguments.demo,
        overrides=tuple(arguments.overrides),
        roots=_by_name("--data-root", arguments.data_root, list(table.sets)),
        weights=_by_name("--pretrained", arguments.pretrained, list(models)),
        seeds=arguments.seeds,
        trials=arguments.trials,
    )


def _processes(arguments: argparse.Namespace, runs: int) -> int:
    """How many trainings side by side. A small one keeps one core busy, not two."""
    demos = min(len(runtime.cores()), MOST_DEMOS) if arguments.demo and arguments.device in ("auto", "CPU") else 1
    return max(1, min(arguments.processes or demos, runs))


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


def _chosen_rows(names: list[str] | None, table: Table) -> list[Row]:
    if names is None:
        return list(table.rows)
    ours = [row.name for row in table.rows if row.config]
    for name in names:
        if name not in ours:
            raise InputError(f"--rows {name}: the table has no row of that name to run; it has {', '.join(ours)}")
    return [row for row in table.rows if row.name in names]


def _refuse_other_recipes(plan: Plan, runs: list[Run]) -> None:
    for one in runs:
        if plan.complete(one) is None and (keys := one.others_recipe()):
            raise InputError(
                f"{one.folder.path}: holds a run with another {keys}; repeat its options, or choose another --output"
            )


def _report(plan: Plan, runs: list[Run], failures: dict[str, str]) -> Report:
    """The whole table as it stands on disk: rows that were not asked for show what they have."""
    asked = {one.row.name for one in runs}
    results = []
    for row in plan.table.rows:
        row_runs = [one for one in runs if one.row.name == row.name] if row.name in asked else plan.fitting_runs(row)
        results.append(row_result(plan, row, row_runs, failures.get(row.name)))
    return Report(plan.name, plan.table, plan.columns, results, plan.options.demo, plan.notes(runs))


def _listing(name: str | None) -> str:
    """All tables with their published numbers; of one, the recipes as well."""
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
