"""The trainings that a table needs: their recipes, folders and states, and how one is made."""

import json
import shlex
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tqdm import tqdm

from ms_vireid.ablations.commands import start
from ms_vireid.ablations.tables import Column, Row, Search, Table, config_of, demo_overrides
from ms_vireid.command.errors import InputError, summary
from ms_vireid.config import Config, DataConfig, differing_keys, dump_config, flat, load_config, stored_config
from ms_vireid.data.read import OBTAIN, read_data
from ms_vireid.engine.run_folder import Evaluation, Result, RunFolder
from ms_vireid.files.checks import read_json

# What keys begin with that no result depends on: a run that differs in nothing else need not be made again. (Pictures
# are compared by their checksum, wherever they lie.)
IDLE_KEYS = (
    "data.root",
    "data.workers",
    "data.cache",
    "train.log_steps",
    "train.checkpoint_steps",
    "evaluation.batch_size",
    "evaluation.compare_untrained",
)


@dataclass(frozen=True)
class Options:
    """What the command line asks of a table's trainings."""

    output: Path
    demo: bool = False
    overrides: tuple[str, ...] = ()
    roots: dict[str, str] = field(default_factory=dict)  # data set to its folder
    weights: dict[str, str] = field(default_factory=dict)  # model's name to its ImageNet weights
    seeds: int = 1
    trials: int | None = None  # of RegDB's splits; none: the configuration's one


@dataclass(frozen=True)
class Training:
    """One training of one row on one data set, and the searches that its model is evaluated on."""

    row: Row
    data_set: str
    arguments: list[str]  # of train.py: the recipe
    config: Config
    data_checksum: str
    folder: RunFolder
    searches: tuple[Search | None, ...]

    @property
    def trial(self) -> int:
        """RegDB's split; 0 for a data set without splits."""
        return self.config.data.trial if self.config.data.name == "regdb" else 0

    def differs(self) -> str | None:
        """The keys in which the run that is in the folder differs from this one; None without such a run."""
        if not self.folder.begun():
            return None
        try:
            record = self.folder.read_record()
            held = stored_config(record.config, str(self.folder.record))  # with the keys that are newer than it
        except InputError:
            return "version of the configuration"
        keys = differing_keys(flat(dump_config(held)), flat(dump_config(self.config)), IDLE_KEYS)
        if record.data.checksum != self.data_checksum:
            keys.append("data's pictures")
        return summary(keys) if keys else None

    def make(self, device: str) -> str | None:
        """Train (or go on with) and evaluate what is not there yet; returns why it failed, or None.

        Raises:
            KeyboardInterrupt: on Ctrl-C or SIGTERM, with the run left resumable.
        """
        log = self.folder.path / "log.txt"
        if self.folder.result.exists():
            tqdm.write("trained already")
        else:
            options = ["--output", str(self.folder.path), "--resume", "auto", "--device", device]
            if reason := start("train", [*self.arguments, *options], log):
                return reason
        for search in self.searches:
            path = result_file(self.folder, search)
            if not path.exists():
                options = ["--checkpoint", str(self.folder.model), "--json", str(path), "--device", device]
                if root := self.config.data.root:  # the pictures may have moved since the training
                    options += ["--data-root", str(root)]
                if reason := start("evaluate", [*options, *search.options()], log):
                    return reason
        return None


class Plan:
    """A table's trainings in the order in which they are made."""

    def __init__(self, name: str, table: Table, options: Options):
        self.name = name
        self.table = table
        self.options = options
        self.sets = _sets(table, options)
        self.columns = [column for column in table.columns if column.data in self.sets]
        if options.demo:
            self.columns = _demo_columns(self.columns)
        self._data = cache(_identities_and_checksum)  # once for all rows that share it: listing SYSU-MM01 takes seconds

    def trainings(self, rows: list[Row]) -> list[Training]:
        """Of `rows`: splits outermost, then seeds, rows and data sets.

        Raises:
            InputError: overrides that do not fit a row, or data that cannot be read.
        """
        found = [one for row in rows if row.config for data_set in self.sets for one in self._of_row(row, data_set)]
        order = {row.name: i for i, row in enumerate(rows)}
        return sorted(found, key=lambda one: (one.trial, one.config.seed, order[one.row.name]))

    def fitting_trainings(self, row: Row) -> list[Training]:
        """As `trainings` for a row that was not asked for; empty if the overrides do not fit it."""
        try:
            return self.trainings([row])
        except InputError:
            return []

    def notes(self, trainings: list[Training]) -> list[str]:
        """What a reader of these trainings' numbers should know, one line each."""
        options = self.options
        best = any(one.config.train.select == "best" for one in trainings)
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

    def _of_row(self, row: Row, data_set: str) -> list[Training]:
        options, path = self.options, config_of(self.name, row, data_set)
        overrides = [*row.overrides, *self.table.sets[data_set]]
        if options.demo:
            overrides += demo_overrides(path, overrides)
        overrides += options.overrides
        config = load_config(path, overrides)
        if weights := options.weights.get(config.model.name):
            overrides.append(f"model.pretrained={json.dumps(weights)}")  # quoted: a path is not YAML
        if root := options.roots.get(data_set):
            overrides.append(f"data.root={json.dumps(root)}")
        splits = [[]]
        if options.trials is not None and config.data.name == "regdb":
            splits = [[f"data.trial={trial}"] for trial in range(1, options.trials + 1)]
        seeds = range(config.seed, config.seed + options.seeds)
        return [
            self._training(row, data_set, path, [*overrides, *split, f"seed={seed}"])
            for split in splits
            for seed in seeds
        ]

    def _training(self, row: Row, data_set: str, path: Path, overrides: list[str]) -> Training:
        config = load_config(path, overrides)
        several = len(self.table.sets) > 1
        if config.data.root is None and config.data.name in OBTAIN:
            raise InputError(
                f"no folder is given for {config.data.name}: --data-root {f'{data_set}=' if several else ''}FOLDER "
                f"({OBTAIN[config.data.name]}); --demo runs without it"
            )
        identities, checksum = self._data(config.data)
        folder = self.options.output / self.name / row.name
        if several and not self.options.demo:
            folder /= data_set
        if config.data.name == "regdb":
            folder /= f"trial{config.data.trial}"
        return Training(
            row,
            data_set,
            ["--config", str(path), *overrides],
            config.with_num_classes(identities),
            checksum,
            RunFolder(folder / f"seed{config.seed}"),
            tuple(dict.fromkeys(column.search for column in self.columns if column.data == data_set)),
        )


def result_file(folder: RunFolder, search: Search | None) -> Path:
    return folder.result if search is None else folder.path / f"result-{search.name}.json"


def read_metrics(folder: RunFolder, search: Search | None) -> dict[str, float] | None:
    """The mean metrics of an evaluation, as fractions; None before it was made."""
    path = result_file(folder, search)
    if not path.exists():
        return None
    return read_json(path, Result).trained if search is None else read_json(path, Evaluation).mean


def _sets(table: Table, options: Options) -> list[str]:
    """The data sets to run on: all; of several, those whose folder is given; the first one's rows for a demo."""
    if options.demo:
        return list(table.sets)[:1]
    return [name for name in table.sets if name in options.roots] or list(table.sets)


def _identities_and_checksum(config: DataConfig) -> tuple[int, str]:
    data = read_data(config)
    return data.train.num_identities, data.checksum()


def _demo_columns(columns: list[Column]) -> list[Column]:
    """Those that the synthetic set can have (its protocol, SYSU-MM01's, has infrared queries only), named after it."""
    fitting = [column for column in columns if not (column.search and column.search.direction)]
    names = [f"synthetic set, {column.search.name}" if column.search else "synthetic set" for column in fitting]
    return [column.model_copy(update={"name": name}) for column, name in zip(fitting, names, strict=True)]
