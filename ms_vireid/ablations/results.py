"""What has become of a table's rows, as the run folders tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ms_vireid.ablations.runs import Training, read_metrics
from ms_vireid.ablations.tables import Column, Row


@dataclass(frozen=True)
class RowResult:
    """One row's trainings.

    metrics: by group of columns, the metrics (fractions) of every complete training. planned: number of trainings.
    complete: of those, how many have all their evaluations. failure: why one failed, in one line. note: what else a
    reader should know. runs: one record a training, for JSON.
    """

    row: Row
    metrics: list[list[dict[str, float]]]
    planned: int
    complete: int
    failure: str | None = None
    note: str | None = None
    runs: list[dict] = field(default_factory=list)

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
    """Read from the run folders; `failure` is this process's."""
    metrics: list[list[dict[str, float]]] = [[] for _ in columns]
    records, notes = [], []
    for one in trainings:
        differs = one.differs()
        if differs:
            notes.append(f"{one.folder.path} holds a run with another {differs}")
        found = {search: None if differs else read_metrics(one.folder, search) for search in one.searches}
        for column, values in zip(columns, metrics, strict=True):
            if column.data == one.data_set and found[column.search]:
                values.append(found[column.search])
        begun = one.folder.begun() and not differs
        record = {"folder": str(one.folder.path), "data": one.config.data.name, "trial": one.trial or None}
        status = "complete" if all(found.values()) else "begun" if begun else "not run"
        records.append(record | {"seed": one.config.seed, "status": status})
    complete = sum(record["status"] == "complete" for record in records)
    return RowResult(row, metrics, len(records), complete, failure, notes[0] if notes else None, records)
