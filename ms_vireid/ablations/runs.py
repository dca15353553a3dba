"""The trainings that a table needs: their recipes and folders, and how to run them."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ms_vireid.ablations.tables import Column, Row, Search, Table, config_of, demo_overrides, folder_name, table_file
from ms_vireid.checkpoints.containers import weight_file
from ms_vireid.command.errors import InputError, summary
from ms_vireid.command.printing import say
from ms_vireid.command.stopping import STOPS, how_ended
from ms_vireid.config import Config, DataConfig, EvaluationConfig, check_config, expand_user, load_config
from ms_vireid.config.reading import quoted
from ms_vireid.data.corruptions import read_photographs
from ms_vireid.data.readers import OBTAIN, read_data
from ms_vireid.data.records import ReIDData
from ms_vireid.engine.run_folder import Result, RunFolder, StoredEvaluation
from ms_vireid.engine.test_set import another_set
from ms_vireid.evaluation.protocol import protocol_trials, require_choices
from ms_vireid.files.checks import read_json, require_file

# Prefixes of keys that no result depends on; pictures are compared by their checksum, wherever they lie.
IDLE_KEYS = (
    "data.root",
    "data.workers",
    "data.cache",
    "train.log_steps",
    "train.tensorboard",
    "train.checkpoint_steps",
    "evaluation.batch_size",
    "evaluation.compare_untrained",
)


@dataclass(frozen=True)
class Training:
    """One training of one row on one data set, and the searches that evaluate its model."""

    row: Row
    data_set: str
    arguments: list[str]  # of train.py: the recipe
    config: Config
    data: ReIDData
    folder: RunFolder
    searches: tuple[Search | None, ...]
    roots: Mapping[str, str] = field(default_factory=dict)  # of other data sets to test on

    @property
    def log(self) -> Path:
        return self.folder.path / "log.txt"

    def differs(self) -> str | None:
        """Name the keys in which the folder's run differs from this one; None if there is no such run or key. Raises
        InputError if its record is damaged."""
        if not self.folder.has_run():
            return None
        record = self.folder.read_record()
        try:
            same_pictures = self.data.has_checksum(record.data.checksum)
            keys = self.folder.differing(record, self.config, same_pictures, IDLE_KEYS)
        except InputError as error:
            return f"version of the configuration ({error})"
        return summary(keys) if keys else None

    def check_weights(self) -> None:
        """Raise InputError if ImageNet weights are missing, unless the training has ended."""
        if not self.config.model.from_scratch and not self.folder.result.exists():
            require_file(weight_file(expand_user(self.config.model.pretrained)), "weight file")

    def make(self, device: str) -> str | None:
        """Train, or go on training, then make the missing evaluations; return why that failed, or None.

        Raises:
            KeyboardInterrupt: on Ctrl-C or SIGTERM; the run can be resumed.
        """
        if self.folder.result.exists():
            say("trained already")
        else:
            options = ["--output", str(self.folder.path), "--resume", "auto", "--device", device]
            if reason := start("train", [*self.arguments, *options], self.log):
                return reason
        for search in self.searches:
            path = result_file(self.folder, search)
            if not path.exists():
                try:
                    self.folder.require_evaluated(self.folder.result, read_json(self.folder.result, Result).protocol)
                except InputError as error:
                    return str(error)
                options = ["--checkpoint", str(self.folder.model), "--json", str(path), "--device", device]
                # The pictures may have moved since the training.
                if root := self.roots.get(search.data) if search.data else self.config.data.root:
                    options += ["--data-root", str(root)]
                if reason := start("evaluate", [*options, *search.options()], self.log):
                    return reason
        return None


@dataclass
class TablePlan:
    """A table's trainings, by the options of the command line.

    name: as in `load_table`. roots: folders by data set. weights: ImageNet weights by model. seeds, trials: number of
    seeds of each row and of RegDB's splits; None: the table's.
    """

    name: str
    table: Table
    output: Path
    demo: bool = False
    overrides: Sequence[str] = ()
    roots: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    seeds: int | None = None
    trials: int | None = None

    def __post_init__(self):
        self.folder = self.output / folder_name(self.name)
        self.seeds = self.seeds or self.table.seeds
        self.trials = self.trials or self.table.splits
        self.sets = [name for name in self.table.sets if name in self.roots] or list(self.table.sets)
        if self.demo:
            self.sets = list(self.table.sets)[:1]
        self.columns = [column for column in self.table.columns if column.data in self.sets]
        if self.demo:
            self.columns = _demo_columns(self.columns)
        self._read = cache(read_data)  # once for all rows: listing SYSU-MM01 takes seconds
        self._check_evaluation = cache(self._check_evaluation)

    def trainings(self, rows: list[Row]) -> list[Training]:
        """List the trainings of `rows`: splits outermost, then seeds, rows and data sets.

        Raises:
            InputError: overrides that do not fit a row, or data that cannot be read.
        """
        trainings = [one for row in rows if row.config for name in self.sets for one in self._of_row(row, name)]
        order = {row.name: i for i, row in enumerate(rows)}
        return sorted(trainings, key=lambda one: (one.config.data.trial, one.config.seed, order[one.row.name]))

    def fitting_trainings(self, row: Row) -> list[Training]:
        """As `trainings`, of a row that --rows leaves out; none if the overrides do not fit it."""
        try:
            return self.trainings([row])
        except InputError:
            return []

    def notes(self, trainings: list[Training]) -> list[str]:
        """Remark on the numbers of these trainings, one line each."""
        best = any(one.config.train.select == "best" for one in trainings)
        epoch = "best epoch's (on the test set)" if best else "last epoch's"
        notes = [f"percent; ours: the {epoch} model, mean over the protocol's galleries"]
        if self.seeds > 1 or self.trials:
            seeds = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
            trials = f" and RegDB's splits 1 to {self.trials}" if self.trials else ""
            notes.append(f"mean ± standard deviation over {seeds}{trials}")
        if self.overrides:
            notes.append(f"with {shlex.join(self.overrides)}")
        if self.demo:
            notes.insert(0, "DEMO: small models from scratch on the synthetic set")
        return notes

    def _of_row(self, row: Row, data_set: str) -> list[Training]:
        path = config_of(self.name, row, data_set)
        overrides = [*row.overrides, *self.table.sets[data_set]]
        if self.demo:
            overrides += demo_overrides(path, overrides)
        overrides += self.overrides
        config = load_config(path, overrides)
        if config.data.name != data_set and not self.demo:
            problem = f"row {row.name} is on {config.data.name}, not on {data_set} as its column"
            remedy = f"name another file in its configs, or set data.name={data_set} in sets"
            raise InputError(f"{path}: {problem}; {remedy}")
        if weights := self.weights.get(config.model.name):
            overrides.append(f"model.pretrained={quoted(weights)}")
        elif config.model.pretrained is None:
            overrides.append("model.pretrained=none")
        if root := self.roots.get(data_set):
            overrides.append(f"data.root={quoted(root)}")
        trials = [config.data.trial]
        if self.trials is not None and config.data.name == "regdb":
            trials = range(1, self.trials + 1)
        seeds = range(config.seed, config.seed + self.seeds)
        return [
            self._training(row, data_set, path, [*overrides, f"data.trial={trial}", f"seed={seed}"])
            for trial in trials
            for seed in seeds
        ]

    def _training(self, row: Row, data_set: str, path: Path, overrides: list[str]) -> Training:
        config = load_config(path, overrides)
        self._require_root(config.data)
        data = self._read(config.data)
        columns = [column for column in self.columns if column.data == data_set]
        for column in columns:
            self._check_search(column, config)
        folder = self.folder / row.name
        if len(self.table.sets) > 1 and not self.demo:
            folder /= data_set
        if config.data.name == "regdb":
            folder /= f"trial{config.data.trial}"
        return Training(
            row,
            data_set,
            ["--config", str(path), *overrides],
            config.with_num_classes(data.train.num_identities),
            data,
            RunFolder(folder / f"seed{config.seed}"),
            tuple(dict.fromkeys(column.search for column in columns)),
            self.roots,
        )

    def _require_root(self, data: DataConfig) -> None:
        if data.root is None and data.name in OBTAIN:
            which = f"{data.name}=" if len(self.table.roots) > 1 else ""
            raise InputError(
                f"no folder is given for {data.name}: --data-root {which}FOLDER ({OBTAIN[data.name]}); --demo runs "
                "without it"
            )

    def _check_search(self, column: Column, config: Config) -> None:
        """Raise InputError, before the training, unless `evaluate.py` can do a column's search."""
        where, search = f"{table_file(self.name)}: column {column.name}", column.search or Search()
        if search.data:
            config = another_set(config, self.roots.get(search.data), search.data)
            self._require_root(config.data)
        evaluation = check_config(config.evaluation.model_dump() | search.keys, where, EvaluationConfig)
        require_choices(search.keys, self._read(config.data), f"{where}: search.")
        self._check_evaluation(config.data, evaluation, search.corrupted)

    def _check_evaluation(self, data: DataConfig, evaluation: EvaluationConfig, corrupted: bool) -> None:
        protocol_trials(self._read(data), evaluation)
        if corrupted and evaluation.frost is not None:
            read_photographs(evaluation.frost)


def result_file(folder: RunFolder, search: Search | None) -> Path:
    return folder.result if search is None else folder.path / f"result-{search.name}.json"


def read_metrics(folder: RunFolder, search: Search | None) -> dict[str, float] | None:
    """Read the mean metrics of an evaluation, as fractions; None before it is made. Raises InputError if it is damaged,
    or of another model than the run's result."""
    path = result_file(folder, search)
    if not path.exists():
        return None
    if search is None:
        return read_json(path, Result).trained
    evaluation = read_json(path, StoredEvaluation)
    trained = read_json(folder.result, Result).protocol.sha256 if folder.result.exists() else None
    if None not in (trained, evaluation.sha256) and trained != evaluation.sha256:
        raise InputError(f"{path}: is not of the model in {folder.result.name}; remove it and rerun the command")
    return evaluation.mean


def _demo_columns(columns: list[Column]) -> list[Column]:
    """Keep the columns of searches that the synthetic set has (all its queries are infrared), and rename them."""
    fitting = [c for c in columns if not (c.search and (c.search.direction or c.search.data))]
    names = [f"synthetic set, {column.search.name}" if column.search else "synthetic set" for column in fitting]
    return [column.model_copy(update={"name": name}) for column, name in zip(fitting, names, strict=True)]


def start(command: str, arguments: Sequence[str], log: Path) -> str | None:
    """Run `python -m ms_vireid.COMMAND`, print its output and append it to `log`; return None, or why it failed.

    A separate process returns its memory, and can be killed alone. It has its own session, so that Ctrl-C reaches it
    once, through this process; if this one is killed outright, it ends at its next line of output.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the command has ended.
    """
    children: list[subprocess.Popen] = []
    stops: list[int] = []

    def forward(number: int, _frame) -> None:
        stops.append(number)
        for child in children:
            child.send_signal(number)

    words = [sys.executable, "-X", "utf8", "-u", "-m", f"ms_vireid.{command}", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    log.parent.mkdir(parents=True, exist_ok=True)
    last = ""
    with ExitStack() as restored, log.open("a", encoding="utf-8") as file:
        for number in STOPS:
            restored.callback(signal.signal, number, signal.signal(number, forward))
        with subprocess.Popen(words, start_new_session=True, **output) as child:
            children.append(child)
            if stops:  # arrived during the start, with nothing to save yet
                child.terminate()
            for line in child.stdout:
                file.write(line)
                file.flush()
                say(line.rstrip("\n"))
                last = line.strip() or last
    if stops:
        raise KeyboardInterrupt
    if child.returncode < 0:
        return how_ended(child.returncode)
    return (last.removeprefix("error: ") or f"exit code {child.returncode}") if child.returncode else None
