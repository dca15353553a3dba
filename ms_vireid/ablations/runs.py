"""The trainings that a table needs: their recipes, folders and states, and how one is made."""

import argparse
import json
import shlex
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from tqdm import tqdm

from ms_vireid import evaluate, train
from ms_vireid.ablations.commands import start
from ms_vireid.ablations.tables import Column, Row, Search, Table, config_of, demo_overrides
from ms_vireid.command.errors import InputError, summary
from ms_vireid.config import Config, DataConfig, check_config, differing_keys, dump_config, flat, load_config
from ms_vireid.config.arguments import recipe
from ms_vireid.data.read import OBTAIN, read_data
from ms_vireid.data.records import ReIDData
from ms_vireid.engine.run_folder import Evaluation, Result, RunFolder
from ms_vireid.files.checks import read_json

# Keys that no result depends on: a run that differs in nothing else is the same one. (The pictures are compared by
# their checksum, wherever they lie.)
FREE_KEYS = (
    "data.root",
    "data.workers",
    "data.cache",
    "data.cache_folder",
    "train.log_steps",
    "train.checkpoint_steps",
    "evaluation.batch_size",
    "evaluation.compare_untrained",
)


@dataclass(frozen=True)
class Options:
    """What the command line asks of a table's runs."""

    output: Path
    demo: bool = False
    overrides: tuple[str, ...] = ()
    roots: dict[str, str] = field(default_factory=dict)  # data set to its folder
    weights: dict[str, str] = field(default_factory=dict)  # model's name to its ImageNet weights
    seeds: int = 1
    trials: int | None = None  # of RegDB's splits; none: the configuration's one


@dataclass(frozen=True)
class Run:
    """One training of one row on one data set."""

    row: Row
    data_set: str
    arguments: list[str]  # of train.py: the recipe
    config: Config
    data_checksum: str
    folder: RunFolder

    @property
    def trial(self) -> int:
        """RegDB's split; 0 for a data set without splits."""
        return self.config.data.trial if self.config.data.name == "regdb" else 0

    @cached_property
    def identity(self) -> dict:
        return _identity(dump_config(self.config), self.data_checksum)

    def others_recipe(self) -> str | None:
        """The keys in which the run that is in the folder differs from this one, or None."""
        begun = _identity_of(self.folder)
        if begun is None or begun == self.identity:
            return None
        return summary(differing_keys(begun, self.identity))


class Plan:
    """A table's runs in the order in which they are made, and what has become of them under the output folder."""

    def __init__(self, name: str, table: Table, options: Options):
        self.name = name
        self.table = table
        self.options = options
        self.sets = _sets(table, options)
        self.columns = [column for column in table.columns if column.data in self.sets]
        if options.demo:
            self.columns = _demo_columns(self.columns)
        self._data = cache(_data_and_checksum)  # once for all rows that share it: listing SYSU-MM01 takes seconds

    def runs(self, rows: list[Row]) -> list[Run]:
        """The trainings of `rows`: splits outermost, then seeds, rows and data sets.

        Raises:
            InputError: overrides that do not fit a row, or data that cannot be read.
        """
        runs = [run for row in rows if row.config for data_set in self.sets for run in self._runs_of(row, data_set)]
        order = {row.name: i for i, row in enumerate(rows)}
        return sorted(runs, key=lambda run: (run.trial, run.config.seed, order[run.row.name]))

    def fitting_runs(self, row: Row) -> list[Run]:
        """As `runs` for a row that was not asked for; empty if the overrides do not fit it."""
        try:
            return self.runs([row])
        except InputError:
            return []

    def searches(self, run: Run) -> list[Search | None]:
        """What the run's model is to be evaluated on, without repetition."""
        return list(dict.fromkeys(column.search for column in self.columns if column.data == run.data_set))

    def complete(self, run: Run) -> RunFolder | None:
        """Where the run's training is complete: its own folder, or another row's or table's with an equal recipe."""
        if run.folder.result.exists() and _identity_of(run.folder) == run.identity:
            return run.folder
        for result in sorted(self.options.output.glob("*/**/seed*/result.json")):
            folder = RunFolder(result.parent)
            if _identity_of(folder) == run.identity:
                return folder
        return None

    def notes(self, runs: list[Run]) -> list[str]:
        """What a reader of these runs' numbers has to know, one line each."""
        options = self.options
        best = any(run.config.train.select == "best" for run in runs)
        epoch = "best epoch's (on the test set)" if best else "last epoch's"
        notes = [f"percent; ours: the {epoch} model, mean over the protocol's galleries"]
        if options.seeds > 1 or options.trials:
            seeds = f"{options.seeds} seed{'s' if options.seeds > 1 else ''}"
            trials = f" and RegDB's splits 1 to {options.trials}" if options.trials else ""
            notes.append(f"mean ± standard deviation over {seeds}{trials}")
        if options.overrides:
            notes.append(f"with {shlex.join(options.overrides)}")
        if options.demo:
            notes.insert(0, "DEMO: small models from scratch on the synthetic set")
        return notes

    def _runs_of(self, row: Row, data_set: str) -> list[Run]:
        path = config_of(self.name, row, data_set)
        overrides = [*row.overrides, *self.table.sets[data_set]]
        if self.options.demo:
            overrides += demo_overrides(path, overrides)
        overrides += self.options.overrides
        config = load_config(path, overrides)
        if weights := self.options.weights.get(config.model.name):
            overrides.append(f"model.pretrained={json.dumps(weights)}")  # quoted: a path is no YAML
        splits: list[list[str]] = [[]]
        if self.options.trials is not None and config.data.name == "regdb":
            splits = [[f"data.trial={trial}"] for trial in range(1, self.options.trials + 1)]
        return [
            self._run(row, data_set, path, [*overrides, *split], seed)
            for split in splits
            for seed in range(config.seed, config.seed + self.options.seeds)
        ]

    def _run(self, row: Row, data_set: str, path: Path, overrides: list[str], seed: int) -> Run:
        root = self.options.roots.get(data_set)
        config = recipe(argparse.Namespace(config=path, data_root=root, seed=seed, overrides=overrides))
        if config.data.root is None and config.data.name in OBTAIN:
            named = f"{data_set}=" if len(self.table.sets) > 1 else ""
            raise InputError(
                f"no folder is given for {config.data.name}: --data-root {named}FOLDER ({OBTAIN[config.data.name]}); "
                "--demo runs without it"
            )
        data, checksum = self._data(config.data)
        folder = self.options.output / self.name / row.name
        if len(self.table.sets) > 1 and not self.options.demo:
            folder /= data_set
        if config.data.name == "regdb":
            folder /= f"trial{config.data.trial}"
        return Run(
            row,
            data_set,
            ["--config", str(path), "--seed", str(seed), *(["--data-root", root] if root else []), *overrides],
            config.with_num_classes(data.train.num_identities),
            checksum,
            RunFolder(folder / f"seed{seed}"),
        )


def result_file(folder: RunFolder, search: Search | None) -> Path:
    return folder.result if search is None else folder.path / f"result-{search.name}.json"


def read_metrics(folder: RunFolder, search: Search | None) -> dict[str, float] | None:
    """The mean metrics of an evaluation, as fractions; None where it has not been made."""
    path = result_file(folder, search)
    if not path.exists():
        return None
    return read_json(path, Result).trained if search is None else read_json(path, Evaluation).mean


def make(run: Run, plan: Plan, device: str, title: str = "") -> str | None:
    """Train (or go on with) and evaluate what is not there yet; returns why it failed, or None.

    title: before each line that is shown.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, with the run left resumable.
    """
    folder = plan.complete(run)
    if folder is None:
        folder = run.folder
        options = ["--output", str(folder.path), "--resume", "auto", "--device", device]
        if reason := start(train, [*run.arguments, *options], folder.path / "log.txt", title):
            return reason
    else:
        same = "trained already" if folder is run.folder else f"the same training as {folder.path}, which is complete"
        tqdm.write(title + same)
    for search in plan.searches(run):
        path = result_file(folder, search)
        if not path.exists():
            root = plan.options.roots.get(run.data_set)
            options = ["--json", str(path), "--device", device, *(["--data-root", root] if root else [])]
            checkpoint = ["--checkpoint", str(folder.checkpoint(folder.model) or folder.model)]
            if reason := start(evaluate, [*checkpoint, *search.options(), *options], folder.path / "log.txt", title):
                return reason
    return None


def _sets(table: Table, options: Options) -> list[str]:
    """The data sets to run on: all; of several, those whose folder is given; the first one's rows for a demo."""
    if options.demo:
        return list(table.sets)[:1]
    return [name for name in table.sets if name in options.roots] or list(table.sets)


def _data_and_checksum(config: DataConfig) -> tuple[ReIDData, str]:
    data = read_data(config)
    return data, data.checksum()


def _demo_columns(columns: list[Column]) -> list[Column]:
    """Those that the synthetic set can have (its protocol, SYSU-MM01's, has infrared queries only), named after it."""
    fitting = [column for column in columns if not (column.search and column.search.direction)]
    names = [f"synthetic set, {column.search.name}" if column.search else "synthetic set" for column in fitting]
    return [column.model_copy(update={"name": name}) for column, name in zip(fitting, names, strict=True)]


def _identity(config: dict, data_checksum: str) -> dict:
    """What decides a run's result: its configuration by dotted keys, and the pictures."""
    keys = flat(config) | {"data's pictures": data_checksum}
    return {key: value for key, value in keys.items() if key not in FREE_KEYS}


def _identity_of(folder: RunFolder) -> dict | None:
    """The same of a run that has begun; None where there is none, or one that today's schema does not know."""
    if not folder.begun():
        return None
    return _identity_in(folder.record, folder.record.stat().st_mtime_ns)


@cache
def _identity_in(record: Path, _time: int) -> dict:
    try:
        content = RunFolder(record.parent).read_record()
        config = check_config(content.config, str(record))  # with the keys that are newer than it
    except InputError:
        return {"configuration": "of another version"}
    return _identity(dump_config(config), content.data.checksum)
