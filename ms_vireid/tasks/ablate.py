"""The rows of a table as runs, and the table beside the published one."""

import argparse
import shlex
import sys
from pathlib import Path

from ms_vireid.ablations.output import Report, format_published, require_own, row_result
from ms_vireid.ablations.runs import TablePlan, Training
from ms_vireid.ablations.tables import Row, Table, config_of, list_tables, load_table
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import ABLATIONS
from ms_vireid.command.printing import say
from ms_vireid.command.progress import progress
from ms_vireid.config import load_config


def main(arguments: argparse.Namespace) -> None:
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
    _report(plan, trainings, failures).write(folder)  # refuse a folder that cannot be written before training
    try:
        for number, one in enumerate(progress(trainings, len(trainings), plan.name, " runs"), 1):
            say(f"[{number}/{len(trainings)}] {one.row.label}: {one.folder.path}")
            if reason := one.make(arguments.device):
                say(f"{one.row.label}: failed: {reason}; log: {one.log}")
                failures[one.row.name] = reason
            _report(plan, trainings, failures).write(folder)
    except KeyboardInterrupt:
        _report(plan, trainings, failures).write(folder)
        say(f"stopped; run it again to continue; the table so far is {folder}/table.md", error=True)
        raise
    say(*_report(plan, trainings, failures).text().split("\n"))
    say(f"results: {folder}/table.md, table.json")
    if failures:
        sys.exit(1)


def _plan(arguments: argparse.Namespace, table: Table) -> TablePlan:
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


def _chosen_rows(names: list[str] | None, table: Table) -> list[Row]:
    if names is None:
        return list(table.rows)
    ours = [row.name for row in table.rows if row.config]
    for name in names:
        if name not in ours:
            raise InputError(f"--rows {name}: the table has no row of that name to run; it has {', '.join(ours)}")
    return [row for row in table.rows if row.name in names]


def _report(plan: TablePlan, trainings: list[Training], failures: dict[str, str]) -> Report:
    """The whole table as it stands on disk. Rows that were not asked for show the results that they have."""
    asked = {one.row.name for one in trainings}
    results = []
    for row in plan.table.rows:
        of_row = [one for one in trainings if one.row is row] if row.name in asked else plan.fitting_trainings(row)
        results.append(row_result(plan.columns, row, of_row, failures.get(row.name)))
    return Report(plan.name, plan.table, plan.columns, results, plan.demo, plan.notes(trainings))


def _listing(name: str | None) -> str:
    """All tables with their published numbers, or one table with its recipes too."""
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
