"""Check a data set: count identities, cameras and pictures beside the published numbers, and decode every picture.

The exit code is 0 if everything is as published, or consistent where nothing is published, and otherwise 1. A synthetic
set that does not exist yet is drawn first.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import re
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.errors import one_line, refuse, summary
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_config, run
from ms_vireid.files.writing import check_output, write_json

if TYPE_CHECKING:
    from ms_vireid.data.counts import Count, Subset
    from ms_vireid.data.pictures import BrokenPictureError

COLUMNS = ("identities", "cameras", "pictures")


def main() -> None:
    parser = Parser(__doc__)
    add_config(parser)
    parser.add_argument("--json", type=Path, metavar="F", help="also write the result to F")
    arguments = parser.parse_intermixed_args()
    refuse(
        [word for word in arguments.overrides if not word.startswith(("data.", "data="))],
        "values of no data set",
        "check-data reads data.KEY=VALUE alone; leave them out",
    )
    check_output(arguments.json, "--json")
    _check(arguments)


def _check(arguments: Namespace) -> None:
    with at_once():
        from ms_vireid.config.reading import config_files, config_from_arguments
        from ms_vireid.data.bit_depth import look_at, notes_on
        from ms_vireid.data.counts import counts, expected, findings
        from ms_vireid.data.digests import copies
        from ms_vireid.data.readers import read_data
        from ms_vireid.data.validation import decode_all, measured_ranges, passed_over

    config = config_from_arguments(arguments).data
    data = read_data(config)
    check_output(arguments.json, "--json", reads=[*config_files(arguments.config), data.root, *data.pictures])
    counted, wanted = counts(data), expected(config)
    split = f", split {config.trial}" if config.name == "regdb" else ""
    say(f"{config.name}{split}: {data.root}")
    say(*_table(counted, wanted, "as configured" if config.name == "synthetic" else "published").split("\n"))
    problems = [*filter(None, [passed_over(data)]), *findings(data, config.name, wanted)]
    paths = {*data.train.paths, *data.test.paths}
    try:
        _, formats = look_at(data.train)
        ranges = config.with_value_ranges(measured_ranges(config, formats)).value_ranges
        broken, coloured = decode_all(data, ranges)
        notes = notes_on(formats + look_at(data.test)[1], ranges, data.root, coloured)
        wrong, beside = copies(data.root, data.train, data.test)
    except KeyboardInterrupt:
        say("stopped; not all pictures were decoded", error=True)
        raise
    names = {str(path.relative_to(data.root)): error for path, error in broken.items()}
    problems += [*wrong, *_unreadable(names)]
    notes += beside
    for line in (*(f"note: {note}" for note in notes), *problems):
        say(one_line(line))
    say(f"{len(paths):,} pictures decoded; {len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}")
    if arguments.json:
        unreadable = {name: str(error) for name, error in names.items()}
        rows = [
            {"split": split, "modality": modality, "found": vars(count)}
            | ({"expected": vars(wanted[split, modality])} if wanted else {})
            for (split, modality), count in counted.items()
        ]
        about = {"data": config.name, "root": str(data.root), "counts": rows}
        write_json(arguments.json, about | {"problems": problems, "notes": notes, "unreadable": unreadable})
    if problems:
        sys.exit(1)


def _unreadable(broken: "Mapping[str, BrokenPictureError]") -> list[str]:
    """Name the pictures that cannot be used, one line for each reason, whatever its numbers."""
    reasons: dict[str, list[str]] = {}
    for name, error in broken.items():
        reasons.setdefault(re.sub(r"\d+", "0", error.reason), []).append(name)
    lines = []
    for names in reasons.values():
        first = broken[names[0]]
        remedy = "replace or remove them" if first.damaged else first.remedy
        lines.append(f"unreadable pictures: {summary(names)}: {first.reason}; {remedy}")
    return lines


def _table(counted: "Mapping[Subset, Count]", wanted: "Mapping[Subset, Count]", beside: str) -> str:
    """The data set's counts, beside those that are wanted if these are known."""
    from ms_vireid.evaluation.metrics_table import aligned

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


if __name__ == "__main__":
    run(main)
