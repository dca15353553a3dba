"""A run folder as its page shows it: what ran, and our numbers beside the papers'."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ms_vireid.ablations import published
from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, stored_config
from ms_vireid.engine.run_folder import Evaluation, Result, RunFolder, read_metrics
from ms_vireid.evaluation.table import COLUMNS
from ms_vireid.files.checks import read_json

DATA_SETS = {
    "sysu_mm01": "SYSU-MM01",
    "regdb": "RegDB",
    "llcm": "LLCM",
    "synthetic": "the synthetic set",
    "folder": "a folder of pictures",
}


class RunView:
    """What a run folder holds besides checkpoints: record (run.json), config, result (result.json, None without).

    Raises:
        InputError: it holds no run, or a file of it is not what train.py writes.
    """

    def __init__(self, folder: RunFolder):
        if not folder.begun():
            raise InputError(f"{folder.path}: holds no run (no run.json); give a run folder of train.py")
        self.folder = folder
        self.record = folder.read_record()
        self.config: Config = stored_config(self.record.config, str(folder.record))
        self.result = read_json(folder.result, Result) if folder.result.exists() else None

    @property
    def name(self) -> str:
        return self.folder.path.resolve().name

    @property
    def data_set(self) -> str:
        return DATA_SETS[self.config.data.name]

    @property
    def checkpoint(self) -> Path | None:
        """The selected weights, else those of a training that has not ended; None before the first checkpoint."""
        return self.folder.checkpoint(self.folder.model, self.folder.last)

    def unfinished(self) -> str | None:
        """How far a run without a result has come; None if it has one."""
        if self.result is not None:
            return None
        if not (rows := read_metrics(self.folder.metrics)):
            return "no step has been logged yet"
        return f"epoch {rows[-1]['epoch']} of {self.config.epochs}, step {rows[-1]['step']} so far"


class Line(NamedTuple):
    """A row of a result's table: "ours", "chance", "published" or "difference", and a text for each metric."""

    label: str
    whose: str
    cells: list[str]


class ResultTable(NamedTuple):
    """One search: percent throughout."""

    caption: str
    headings: list[str]
    lines: list[Line]


def result_tables(run: RunView) -> list[ResultTable]:
    """Of each search that was evaluated: our metrics, the untrained model's, chance, and the published ones."""
    config = run.config
    printed = published.published_results(config)
    tables = []
    if run.result is not None:
        others = {name: held for name in ("untrained", "chance") if (held := getattr(run.result, name))}
        own = published.search_key(config.data.name, config.evaluation)
        tables.append(_result_table(run, own, run.result.protocol, others, printed))
    for search, name in published.further_results(run.folder, config):
        result = read_json(run.folder.path / name, Evaluation)
        tables.append(_result_table(run, search, result, {}, printed))
    return tables


def _result_table(
    run: RunView, search: tuple[str, ...], result: Evaluation, others: Mapping, printed: Sequence[published.Published]
) -> ResultTable:
    columns = [name for name in COLUMNS if name in result.mean]
    mean = {name: 100 * value for name, value in result.mean.items()}
    galleries = len(result.trials)
    deviations = {name: f" ± {100 * value:.2f}" if galleries > 1 else "" for name, value in result.std.items()}
    lines = [Line("trained", "ours", [f"{mean[name]:.2f}{deviations[name]}" for name in columns])]
    for name, metrics in others.items():
        label, whose = ("random rankings", "chance") if name == "chance" else (name, "ours")
        lines.append(Line(label, whose, [_number(100 * metrics[n]) for n in columns]))
    for one in (one for one in printed if one.search == search):
        gaps = [mean[n] - one.metrics[n] if n in one.metrics else None for n in columns]
        lines.append(Line(f"{one.label}: {one.where}", "published", [_number(one.metrics.get(n)) for n in columns]))
        lines.append(Line("trained minus published", "difference", [_number(gap, "+") for gap in gaps]))
    averaged = f"; mean ± standard deviation over {galleries} galleries" if galleries > 1 else ""
    sizes = f"{result.num_queries:,} queries among {result.num_gallery:,} pictures"
    caption = f"{run.data_set[0].upper()}{run.data_set[1:]}, {', '.join(search)}, in percent: {sizes}{averaged}."
    return ResultTable(caption, [COLUMNS[name] for name in columns], lines)


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.2f}"


def result_notes(run: RunView) -> list[str]:
    """What a reader of the result should know: whether there is one, and whether there are published numbers."""
    config, notes = run.config, []
    if unfinished := run.unfinished():
        notes.append(f"No result yet ({unfinished}): train.py --resume auto goes on and ends with the evaluation.")
    if config.data.name == "synthetic":
        notes.append(
            "Published: none. The papers evaluate on photographs; the synthetic set is this project's own, and what it "
            "gives says nothing about theirs."
        )
    elif published.published_results(config):
        notes.append(
            "“Published” is what the papers print for this recipe, which do not say of which epoch: PMT's and AGW's "
            f"releases keep the best one on the test set. “Ours” is this run's {config.train.select} epoch."
        )
        if config.data.name == "regdb":
            notes.append(f"The papers average RegDB's ten splits; this run is split {config.data.trial}.")
    else:
        nearest = published.nearest_recipe(config)
        notes.append(
            "Published: none. This recipe is not one of the papers' rows in configs/ablations"
            + (f"; the nearest, {nearest}." if nearest else ".")
        )
    return notes
