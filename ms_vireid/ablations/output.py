"""Our numbers beside the printed ones: as plain text, Markdown and JSON."""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ms_vireid.ablations.runs import TablePlan, Training, read_metrics
from ms_vireid.ablations.tables import Column, Row, Table, config_of, list_tables, load_table
from ms_vireid.command.errors import InputError, printable
from ms_vireid.evaluation.metrics_table import COLUMNS, aligned, markdown
from ms_vireid.files.checks import SEAL
from ms_vireid.files.writing import check_derived, make_folder, obstacle, write_json, write_text

JSON, MARKDOWN = "table.json", "table.md"
KINDS = {"ours": "ours", "published": "paper", "difference": "diff", "gain": "gain"}
NUMBERS = ("mean", "std", "published", "difference", "gain")  # of a cell, in JSON

Heading = tuple[str, str, str]  # group of columns, metric, kind of number


@dataclass(frozen=True)
class RowResult:
    """The state of a row's trainings.

    metrics: by group of columns, the metrics (fractions) of every complete training. planned, complete: numbers of
    trainings; complete ones have all their evaluations. failure: why one failed, in one line. note: for readers. marks:
    what is less than in the paper. runs: one record a training, for JSON.
    """

    row: Row
    metrics: list[list[dict[str, float]]]
    planned: int
    complete: int
    failure: str | None = None
    note: str | None = None
    marks: tuple[str, ...] = ()
    runs: list[dict] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The row's label with the marks, for parts that show our number beside the published one."""
        return f"{self.row.marked_label} ({', '.join(self.marks)})" if self.marks else self.row.marked_label

    @property
    def status(self) -> str:
        if self.row.config is None:
            return "published only"
        if self.failure is not None:
            return "failed"
        if self.planned and self.complete == self.planned:
            return "complete"
        return "partly run" if any(self.metrics) else "not run"


def row_result(columns: Sequence[Column], row: Row, trainings: Sequence[Training], failure: str | None) -> RowResult:
    """Collect a row's results from its run folders. failure: of a training in this process."""
    metrics: list[list[dict[str, float]]] = [[] for _ in columns]
    records, notes = [], []
    for one in trainings:
        if problem := _problem(one):
            notes.append(problem)
        results = {search: None if problem else read_metrics(one.folder, search) for search in one.searches}
        for column, values in zip(columns, metrics, strict=True):
            if column.data == one.data_set and results[column.search]:
                values.append(results[column.search])
        started = one.folder.has_run() and not problem
        trial = one.config.data.trial if one.config.data.name == "regdb" else None
        record = {"folder": str(one.folder.path), "data": one.config.data.name, "trial": trial}
        status = "complete" if all(results.values()) else "begun" if started else "not run"
        records.append(record | {"seed": one.config.seed, "status": status})
    complete = sum(record["status"] == "complete" for record in records)
    note = notes[0] if notes else None
    return RowResult(row, metrics, len(records), complete, failure, note, _marks(trainings), records)


def _problem(one: Training) -> str | None:
    """Say why the run in a training's folder has no numbers for a table; None if it may have."""
    try:
        differs = one.differs()
    except InputError as error:
        return str(error)
    return f"{one.folder.path} holds a run with another {differs}" if differs else None


def _marks(trainings: Sequence[Training]) -> tuple[str, ...]:
    """Mark what is less than in the papers, which start from ImageNet weights and average RegDB's ten splits."""
    splits = {one.config.data.trial for one in trainings if one.config.data.name == "regdb"}
    marks = ["from scratch"] if any(one.config.model.from_scratch for one in trainings) else []
    return (*marks, "one split of RegDB") if len(splits) == 1 else tuple(marks)


@dataclass(frozen=True)
class Cell:
    """One number of a table, in percent.

    values: of the complete trainings. first: of the first row's, with the same seeds and splits in the same order.
    """

    values: tuple[float, ...]
    published: float | None
    first: tuple[float, ...] = ()

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None

    @property
    def std(self) -> float | None:
        """Population standard deviation over the trainings; None for less than two."""
        return float(np.std(self.values)) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        return None if self.mean is None or self.published is None else self.mean - self.published

    @property
    def gain(self) -> tuple[float, float] | None:
        """The gain over the first row: mean over the trainings and standard error; None for less than two."""
        if len(self.values) < 2 or len(self.first) != len(self.values):
            return None
        gains = np.subtract(self.values, self.first)
        return float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))

    def text(self, kind: str, failed: bool = False) -> str:
        """Format the number of that kind for a table."""
        if kind == "ours":
            mean = "failed" if failed and not self.values else _number(self.mean)
            return mean if self.std is None else f"{mean} ± {_number(self.std)}"
        if kind == "gain":
            return "-" if self.gain is None else f"{self.gain[0]:+.2f} ± {self.gain[1]:.2f}"
        return _number(self.published) if kind == "published" else _number(self.difference, "+")


def require_own(folder: Path, trainings: Sequence[Training]) -> None:
    """Raise InputError if a file that the table would write, or a log that it would add to, is not ours: its folder has
    neither our table.json nor a run."""
    derived = [folder / JSON] if os.path.lexists(folder / JSON) else [folder / MARKDOWN]
    if not (folder / JSON).exists():
        derived += [one.log for one in trainings if not one.folder.has_run()]
    for path in derived:
        check_derived(path, SEAL.encode(), "choose another --output")
    for one in trainings:
        if problem := obstacle(one.log):
            raise InputError(f"{one.log}: {problem}; choose another --output")


@dataclass(frozen=True)
class Report:
    """A table with our numbers. columns: those that are run. results: one a row. notes: lines under the title."""

    name: str
    table: Table
    columns: list[Column]
    results: list[RowResult]
    demo: bool
    notes: list[str]

    @classmethod
    def of(cls, plan: TablePlan, trainings: list[Training], failures: dict[str, str]) -> "Report":
        """The whole table as it stands on disk. Rows that were not asked for show the results that they have.
        failures: why a training failed, by row."""
        asked = {one.row.name for one in trainings}
        results = []
        for row in plan.table.rows:
            of_row = [one for one in trainings if one.row is row] if row.name in asked else plan.fitting_trainings(row)
            results.append(row_result(plan.columns, row, of_row, failures.get(row.name)))
        return cls(plan.name, plan.table, plan.columns, results, plan.demo, plan.notes(trainings))

    def write(self, folder: Path) -> None:
        """Write table.json and table.md. Raises InputError if the folder cannot be written."""
        make_folder(folder)
        write_json(folder / JSON, self.as_dict())  # first: see `require_own`
        write_text(folder / MARKDOWN, self.markdown())

    def text(self) -> str:
        parts = [self.table.heading, *map(printable, self.notes)]
        for caption, headings, rows in self._parts():
            parts += filter(None, (caption, aligned(headings, rows, left=1)))
        return "\n".join([*parts, *self.remarks()])

    def markdown(self) -> str:
        lines = [f"# {self.table.heading}", *(f"\n{printable(note)}" for note in self.notes)]
        for caption, headings, rows in self._parts():
            lines += ["", *([caption, ""] if caption else [])]
            if len({group for group, *_ in headings[1:]}) == 1:  # its name once, over the labels
                headings = [(headings[1][0], "", ""), *(("", *names) for _, *names in headings[1:])]
            lines += markdown(headings, rows)
        lines += ["", *(f"* {remark}" for remark in self.remarks())] if self.remarks() else []
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict:
        """Return table.json: percent throughout; `gain` over the first row, seed by seed, with its standard error."""
        rows = []
        for result in self.results:
            numbers = [
                {"columns": column.name, "metric": metric} | {name: getattr(cell, name) for name in NUMBERS}
                for column, metric, cell in self._numbers(result)
            ]
            about = {"name": result.row.name, "label": result.row.label, "status": result.status}
            about |= {"failure": result.failure, "published": result.row.published, "marks": result.marks}
            rows.append(about | {"numbers": numbers, "runs": result.runs})
        about = {"table": self.name, "source": self.table.source, "title": self.table.title}
        return about | {"demo": self.demo, "notes": self.notes, "rows": rows}

    def remarks(self) -> list[str]:
        """Remark on single rows, one line each."""
        remarks = []
        for result in self.results:
            state = {"failed": f"failed: {result.failure}", "partly run": f"{result.complete} of {result.planned} runs"}
            texts = filter(None, (state.get(result.status), result.note, result.row.stand_in))
            remarks += [printable(f"{result.row.label}: {text}") for text in texts]
        return remarks

    def _parts(self) -> Iterator[tuple[str, list[Heading], list[list[str]]]]:
        run = [result for result in self.results if result.row.config]
        if self.demo:
            yield self._part("Ours, on the synthetic set:", self.columns, run, ("ours",))
        else:
            printed = any(row.published for row in self.table.rows)
            kinds = ("ours", "published", "difference") if printed else ("ours",)
            yield self._part("", self.columns, self.results, kinds)
        if any(cell.gain for result in run for _, _, cell in self._numbers(result)):
            others = [result for result in run if result is not self._first]
            caption = f"Above {self._first.row.label}, seed by seed, ± standard error:"
            yield self._part(caption, self.columns, others, ("gain",))
        if self.demo and any(row.published for row in self.table.rows):
            caption = "Published, on the real data, not to be compared:"
            yield self._part(caption, list(self.table.columns), self.results, ("published",))

    def _part(
        self, caption: str, columns: list[Column], results: list[RowResult], kinds: tuple[str, ...]
    ) -> tuple[str, list[Heading], list[list[str]]]:
        names = [KINDS[kind] if len(kinds) > 1 else "" for kind in kinds]
        headings = [(column.name, COLUMNS[m], name) for column in columns for m in column.metrics for name in names]
        rows = []
        for result in results:
            cells = [cell for _, _, cell in self._numbers(result)]
            if kinds == ("published",):
                cells = [Cell((), number) for number in self.table.published(result.row).values()]
            failed = result.status == "failed"
            label = result.label if "published" in kinds and "ours" in kinds else result.row.marked_label
            rows.append([label, *(cell.text(kind, failed) for cell in cells for kind in kinds)])
        return caption, [("", "", ""), *headings], rows

    @property
    def _first(self) -> RowResult:
        """The row to compare the others with: the first that is run."""
        return next(result for result in self.results if result.row.config)

    def _numbers(self, result: RowResult) -> Iterator[tuple[Column, str, Cell]]:
        """Yield the numbers of a row, each with the published one, which a demonstration cannot be compared with."""
        printed = {} if self.demo else self.table.published(result.row)
        compared = result is not self._first and result.status == self._first.status == "complete"
        for column, runs, first in zip(self.columns, result.metrics, self._first.metrics, strict=True):
            for metric in column.metrics:
                values = tuple(100 * run[metric] for run in runs)
                reference = tuple(100 * run[metric] for run in first) if compared else ()
                yield column, metric, Cell(values, printed.get((column.name, metric)), reference)


def listing(name: str | None) -> str:
    """All tables with their published numbers, or one table with its recipes too."""
    if name is None:
        return "\n\n".join(_format_published(each, load_table(each)) for each in list_tables())
    table = load_table(name)
    lines = [_format_published(name, table), "", "recipes, for train.py:"]
    for row in table.rows:
        for data_set, overrides in table.sets.items():
            if row.config:
                words = [str(config_of(name, row, data_set)), *row.overrides, *overrides]
                lines.append(f"{row.name} on {data_set}: --config " + shlex.join(words))
    return "\n".join(lines)


def _format_published(name: str, table: Table) -> str:
    headings = [(column.name, COLUMNS[metric]) for column in table.columns for metric in column.metrics]
    rows = [[row.name, row.marked_label, *map(_number, table.published(row).values())] for row in table.rows]
    return f"{name}: {table.heading}\n" + aligned([("", "row"), ("", ""), *headings], rows, left=2)


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"
