"""The check of a data set."""

import argparse
import sys
from collections.abc import Mapping

from ms_vireid.command.errors import one_line, summary
from ms_vireid.command.printing import say
from ms_vireid.config.reading import config_files, config_from_arguments
from ms_vireid.data.counts import Count, Part, counts, expected, findings
from ms_vireid.data.kinds import look_at, notes_on
from ms_vireid.data.read import read_data
from ms_vireid.data.validation import range_of, undecodable
from ms_vireid.evaluation.table import aligned
from ms_vireid.files.writing import check_output, write_json

COLUMNS = ("identities", "cameras", "pictures")


def main(arguments: argparse.Namespace) -> None:
    config = config_from_arguments(arguments).data
    data = read_data(config)
    check_output(arguments.json, "--json", reads=[*config_files(arguments.config), data.root, *data.pictures])
    counted, wanted = counts(data), expected(config)
    split = f", split {config.trial}" if config.name == "regdb" else ""
    say(f"{config.name}{split}: {data.root}")
    say(*_table(counted, wanted, "as configured" if config.name == "synthetic" else "published").split("\n"))
    problems = findings(data, config.name, wanted)
    paths = {*data.train.paths, *data.test.paths}
    try:
        _, kinds = look_at(data.train.paths)
        value_range = range_of(config, kinds)
        notes = notes_on(kinds + look_at(data.test.paths)[1], value_range, data.root)
        broken = undecodable(sorted(paths), data.root, value_range)
    except KeyboardInterrupt:
        say("stopped; not all pictures were decoded", error=True)
        raise
    names = {str(path.relative_to(data.root)): problem for path, problem in broken.items()}
    if names:
        problems.append(f"unreadable pictures: {summary(list(names))}; replace or remove them")
    for line in (*(f"note: {note}" for note in notes), *problems):
        say(one_line(line))
    say(f"{len(paths):,} pictures decoded; {len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}")
    if arguments.json:
        rows = [
            {"split": split, "modality": modality, "found": vars(count)}
            | ({"expected": vars(wanted[split, modality])} if wanted else {})
            for (split, modality), count in counted.items()
        ]
        about = {"data": config.name, "root": str(data.root), "counts": rows}
        write_json(arguments.json, about | {"problems": problems, "notes": notes, "unreadable": names})
    if problems:
        sys.exit(1)


def _table(counted: Mapping[Part, Count], wanted: Mapping[Part, Count], beside: str) -> str:
    """The data set's counts, beside those that are wanted if these are known."""
    headings = [("", "split"), ("", "modality")]
    for column in COLUMNS:
        headings += [(column, "found"), (column, beside)] if wanted else [("", column)]
    rows = []
    for part, count in counted.items():
        sides = (count, wanted[part]) if wanted else (count,)
        rows.append([*part, *(_cell(getattr(side, column)) for column in COLUMNS for side in sides)])
    return aligned(headings, rows, left=2)


def _cell(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
