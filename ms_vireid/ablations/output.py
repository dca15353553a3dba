"""Our numbers beside the printed ones: as plain text, Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_vireid.ablations.results import RowResult
from ms_vireid.ablations.tables import Column, Table
from ms_vireid.evaluation.table import COLUMNS, aligned
from ms_vireid.files.writing import make_folder, write_text

KINDS = {"ours": "ours", "published": "paper", "difference": "diff", "gain": "gain"}
NUMBERS = ("mean", "std", "published", "difference", "gain")  # of a cell, in JSON

Heading = tuple[str, str, str]  # group of columns, metric, kind of number


@dataclass(frozen=True)
class Cell:
    """One number of a table, in percent.

    values: of the complete runs. first: of the table's first row, with the same seeds and splits in the same order.
    """

    values: tuple[float, ...]
    published: float | None
    first: tuple[float, ...] = ()

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None

    @property
    def std(self) -> float | None:
        """Population standard deviation over the runs; None for less than two."""
        return float(np.std(self.values)) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        if self.mean is None or self.published is None:
            return None
        return self.mean - self.published

    @property
    def gain(self) -> tuple[float, float] | None:
        """Mean over the runs of what this row is above the first, and its standard error; None for less than two."""
        if len(self.values) < 2 or len(self.first) != len(self.values):
            return None
        gains = np.subtract(self.values, self.first)
        return float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))


@dataclass(frozen=True)
class Report:
    """A table with our numbers.

    columns: the groups of columns that were run: of the table's own or, for a demo, of the synthetic set. results: by
    row. notes: lines under the title.
    """

    name: str
    table: Table
    columns: list[Column]
    results: list[RowResult]
    demo: bool
    notes: list[str]

    def write(self, folder: Path) -> None:
        """table.md, table.csv and table.json, each whole or not at all.

        Raises:
            InputError: the folder cannot be written.
        """
        make_folder(folder)
        write_text(folder / "table.md", self.markdown())
        write_text(folder / "table.csv", self.csv())
        write_text(folder / "table.json", json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n")

    def text(self) -> str:
        parts = [f"{self.table.source}: {self.table.title}", *self.notes]
        for caption, columns, kinds in self._parts():
            parts += [caption] if caption else []
            parts.append(aligned(self._headings(columns, kinds), self._rows(kinds), left=1))
        return "\n".join([*parts, *self.remarks()])

    def markdown(self) -> str:
        lines = [f"# {self.table.source}: {self.table.title}", *(f"\n{note}" for note in self.notes)]
        for caption, columns, kinds in self._parts():
            headings = self._headings(columns, kinds)
            lines += ["", *([caption, ""] if caption else [])]
            if len(columns) == 1:  # its name once, over the labels, instead of in every heading
                headings = [(columns[0].name, "", ""), *(("", *names) for _, *names in headings[1:])]
            lines.append(_markdown_row(" ".join(filter(None, heading)) for heading in headings))
            lines.append(_markdown_row(["---", *["---:"] * (len(headings) - 1)]))
            lines += map(_markdown_row, self._rows(kinds))
        lines += ["", *(f"* {remark}" for remark in self.remarks())] if self.remarks() else []
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """One line a number; a demo's are followed by the published ones, on lines of their own."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["table", "row", "label", "status", "columns", "metric", "runs", "mean", "std", "published", "difference"]
        )
        for result in self.results:
            for column, metric, cell in [*self._numbers(result), *(self._published(result) if self.demo else [])]:
                numbers = (_plain(value) for value in (cell.mean, cell.std, cell.published, cell.difference))
                where = [self.name, result.row.name, result.row.label, result.status, column.name, metric]
                writer.writerow([*where, len(cell.values), *numbers])
        return file.getvalue()

    def as_dict(self) -> dict:
        """Percent throughout; `gain`: above the first row, seed by seed, and its standard error."""
        return {
            "table": self.name,
            "source": self.table.source,
            "title": self.table.title,
            "demo": self.demo,
            "notes": self.notes,
            "rows": [self._row_as_dict(result) for result in self.results],
        }

    def remarks(self) -> list[str]:
        """What a reader has to know of single rows."""
        remarks = []
        for result in self.results:
            said = {"failed": f"failed: {result.failure}", "partly run": f"{result.complete} of {result.planned} runs"}
            texts = filter(None, (said.get(result.status), result.note, result.row.stand_in))
            remarks += [f"{result.row.label}: {text}" for text in texts]
        return remarks

    def _row_as_dict(self, result: RowResult) -> dict:
        return {
            "name": result.row.name,
            "label": result.row.label,
            "status": result.status,
            "failure": result.failure,
            "published": result.row.published,
            "numbers": [
                {"columns": column.name, "metric": metric} | {name: getattr(cell, name) for name in NUMBERS}
                for column, metric, cell in self._numbers(result)
            ],
            "runs": result.runs,
        }

    def _parts(self) -> list[tuple[str, list[Column], tuple[str, ...]]]:
        """Tables one under the other: caption, groups of columns, kinds of numbers."""
        ours = ("ours",) if self.demo else ("ours", "published", "difference")
        parts = [("Ours, on the synthetic set:" if self.demo else "", self.columns, ours)]
        if any(cell.gain for result in self.results for _, _, cell in self._numbers(result)):
            caption = f"Above {self._first.row.label}, seed by seed, ± standard error:"
            parts.append((caption, self.columns, ("gain",)))
        if self.demo:
            caption = "Published, on the real data, not to be compared:"
            parts.append((caption, list(self.table.columns), ("published",)))
        return parts

    @property
    def _first(self) -> RowResult:
        """The row that the others are compared with: the first that is run."""
        return next(result for result in self.results if result.row.config)

    def _numbers(self, result: RowResult) -> Iterator[tuple[Column, str, Cell]]:
        """The numbers of a row, each with the published one; a demonstration has none to compare with."""
        published = (
            {} if self.demo else {(c.name, metric): cell.published for c, metric, cell in self._published(result)}
        )
        compared = result is not self._first and result.status == self._first.status == "complete"
        for column, runs, first in zip(self.columns, result.metrics, self._first.metrics, strict=True):
            for metric in column.metrics:
                values = tuple(100 * run[metric] for run in runs)
                of_first = tuple(100 * run[metric] for run in first) if compared else ()
                yield column, metric, Cell(values, published.get((column.name, metric)), of_first)

    def _published(self, result: RowResult) -> Iterator[tuple[Column, str, Cell]]:
        for column, values in zip(self.table.columns, self.table.published(result.row), strict=True):
            for metric, value in zip(column.metrics, values, strict=True):
                yield column, metric, Cell((), value)

    def _headings(self, columns: list[Column], kinds: tuple[str, ...]) -> list[Heading]:
        names = [KINDS[kind] if len(kinds) > 1 else "" for kind in kinds]
        numbers = [(column.name, COLUMNS[m], name) for column in columns for m in column.metrics for name in names]
        return [("", "", ""), *numbers]

    def _rows(self, kinds: tuple[str, ...]) -> list[list[str]]:
        run = [result for result in self.results if result.row.config or "published" in kinds]
        run = [result for result in run if kinds != ("gain",) or result is not self._first]
        return [[result.row.marked_label, *self._cells(result, kinds)] for result in run]

    def _cells(self, result: RowResult, kinds: tuple[str, ...]) -> list[str]:
        if kinds == ("published",):
            return [_number(cell.published) for _, _, cell in self._published(result)]
        shown = {
            "ours": lambda cell: "failed" if result.status == "failed" and not cell.values else _with_deviation(cell),
            "published": lambda cell: _number(cell.published),
            "difference": lambda cell: _number(cell.difference, "+"),
            "gain": lambda cell: "-" if cell.gain is None else f"{cell.gain[0]:+.2f} ± {cell.gain[1]:.2f}",
        }
        return [shown[kind](cell) for _, _, cell in self._numbers(result) for kind in kinds]


def format_published(name: str, table: Table) -> str:
    """A table's rows by name with their printed numbers, for `--list`."""
    headings = [(column.name, COLUMNS[metric]) for column in table.columns for metric in column.metrics]
    rows = [
        [row.name, row.marked_label, *(_number(value) for group in table.published(row) for value in group)]
        for row in table.rows
    ]
    return f"{name}: {table.source}: {table.title}\n" + aligned([("", "row"), ("", ""), *headings], rows, left=2)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _with_deviation(cell: Cell) -> str:
    return _number(cell.mean) if cell.std is None else f"{_number(cell.mean)} ± {_number(cell.std)}"
