"""What has become of a table's rows, as the run folders tell."""

from dataclasses import dataclass, field

from ms_vireid.ablations.runs import Plan, Run, read_metrics
from ms_vireid.ablations.tables import Row


@dataclass(frozen=True)
class RowResult:
    """One row's runs.

    metrics: by group of columns, the metrics (fractions) of every complete run. planned: number of runs. complete: of
    those, how many have all their evaluations. failure: why one failed, in one line. note: what else a reader has to
    know. runs: one record a run, for JSON.
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


def row_result(plan: Plan, row: Row, runs: list[Run], failure: str | None) -> RowResult:
    """Read from the run folders; `failure` is this process's."""
    folders = {id(run): plan.complete(run) for run in runs}
    metrics = [
        [
            found
            for run in runs
            if run.data_set == column.data and (folder := folders[id(run)])
            if (found := read_metrics(folder, column.search))
        ]
        for column in plan.columns
    ]
    records = [_record(plan, run) for run in runs]
    others = [f"{run.folder.path} holds a run with another {keys}" for run in runs if (keys := run.others_recipe())]
    return RowResult(
        row,
        metrics,
        planned=len(runs),
        complete=sum(record["status"] == "complete" for record in records),
        failure=failure,
        note=others[0] if others else None,
        runs=records,
    )


def _record(plan: Plan, run: Run) -> dict:
    folder = plan.complete(run)
    evaluated = folder and all(read_metrics(folder, search) for search in plan.searches(run))
    begun = run.folder.begun() and not run.others_recipe()
    return {
        "folder": str((folder or run.folder).path),
        "data": run.config.data.name,
        "trial": run.trial or None,
        "seed": run.config.seed,
        "status": "complete" if evaluated else "begun" if folder or begun else "not run",
    }
