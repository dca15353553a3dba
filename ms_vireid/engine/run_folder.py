"""The folder of a run: its configuration, device, log, results and weights."""

import json
import os
import platform
import re
import socket
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from ms_vireid.checkpoints.containers import MODEL
from ms_vireid.checkpoints.weights import Checkpoint, Fraction
from ms_vireid.command.checkout import git_commit
from ms_vireid.command.errors import InputError, first_few
from ms_vireid.command.running import project_version
from ms_vireid.config import FREE_KEYS, Config, DataConfig, expand_user
from ms_vireid.config.reading import check_config, differing_keys, dump_config, flat, save_config
from ms_vireid.data.records import ReIDData
from ms_vireid.data.synthetic import MARKER
from ms_vireid.devices.cpu import processor_name
from ms_vireid.evaluation.ranking import mean_and_deviation
from ms_vireid.files.checks import file_checksum, open_file, read_json, sealed, unsealed
from ms_vireid.files.writing import (
    FOLDER,
    append_line,
    check_outside,
    lock,
    make_folder,
    obstacle,
    write_json,
    write_text,
)

_EVENTS = r"^tensorboard(-[0-9]+)?/events\.out\.tfevents\.[0-9A-Za-z._-]+$"  # also of 0.1.0
_UNFINISHED = re.compile(rb"\{[ -~]*")  # the last line of a process that was killed while it wrote
METRICS = "metrics.jsonl of a run"
_MAX_BYTES, _MAX_LINE_BYTES, _MAX_NAMES = 1 << 26, 1 << 14, 50  # of metrics.jsonl
_NUMBER_BYTES, _OTHER_NUMBERS = 45, 8  # of a line, at most: each with its name; besides the loss terms
_BEYOND_FLOAT32 = 2.0**128
_ROUNDED = 1e-9  # of fractions

_Count = Annotated[int, Field(ge=0, lt=2**63)]
Metrics = Annotated[dict[str, Fraction], Field(max_length=_MAX_NAMES)]


class _Split(BaseModel):
    pictures: _Count
    identities: _Count


class _DataSet(BaseModel):
    name: str
    root: str
    train: _Split
    test: _Split
    checksum: str


class RunRecord(BaseModel):
    """The content of run.json: what is needed to repeat the run."""

    command: list[str]
    earlier_commands: list[list[str]]  # of a run that was resumed
    seed: _Count
    device: str
    processor: str
    cores: _Count | None
    platform: str
    python: str
    versions: dict[str, str]
    git_commit: str | None
    data: _DataSet
    config: dict
    events: Annotated[str, Field(pattern=_EVENTS)] | None
    as_written: list[str] = []  # what ran without its kernel, and why


class StoredEvaluation(BaseModel):
    """An evaluation as stored in JSON: metrics as fractions, of its trials, their mean and its deviation."""

    mean: Metrics
    std: Metrics
    trials: Annotated[list[Metrics], Field(min_length=1)]
    num_queries: _Count
    num_gallery: _Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # of the model's file

    @model_validator(mode="after")
    def _sums_up_its_trials(self) -> "StoredEvaluation":
        require_mean(self.mean, self.std, self.trials)
        return self


def require_mean(mean: dict[str, float], std: dict[str, float], of: list[dict[str, float]]) -> None:
    """Raise ValueError unless these are the mean and the deviation of metrics of trials or runs."""
    for stored, computed in zip((mean, std), mean_and_deviation(of), strict=True):
        if stored.keys() != computed.keys() or any(abs(stored[n] - computed[n]) > _ROUNDED for n in stored):
            raise ValueError("its mean or deviation is not that of its trials or runs")


class Result(BaseModel):
    """The content of result.json."""

    trained: Metrics
    untrained: Metrics | None = None
    chance: Metrics | None = None
    protocol: StoredEvaluation


class RunFolder:
    """The files of a run, which is resumed from last.safetensors."""

    def __init__(self, path: Path | str):
        self.path = path = Path(path)
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.last = path / "last.safetensors"
        self.model = path / MODEL
        self.result = path / "result.json"
        self._lock = None  # keeps other processes out while this one trains
        self._events = None  # for TensorBoard

    def kept(self, epoch: int) -> Path:
        """Path of the weights after an epoch of `train.keep_epochs`; 0 is before the first."""
        return self.path / f"epoch-{epoch}.safetensors"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that a run writes, besides those of `kept`."""
        return self.record, self.config, self.metrics, self.last, self.model, self.result

    def has_run(self) -> bool:
        """Return whether a run has begun in this folder."""
        return self.record.exists()

    def read_record(self) -> RunRecord:
        """Read run.json; raises InputError if it is not what `create` writes."""
        return read_json(self.record, RunRecord)

    def differing(self, record: RunRecord, config: Config, same_pictures: bool, free: tuple[str, ...]) -> list[str]:
        """List the keys in which the recorded run differs from `config`, except those that begin with one of `free`,
        and the pictures if these differ. Raises InputError if the record is damaged."""
        return [*_changed(record.config, self.record, config, free), *([] if same_pictures else ["data's pictures"])]

    def require_evaluated(self, path: Path, evaluation: StoredEvaluation) -> None:
        """Raise InputError if the evaluation in `path` is of another model than the run's."""
        if self.model.exists() and evaluation.sha256 != file_checksum(self.model):
            problem = f"its SHA-256 is not that of the model in {path.name}"
            raise InputError(f"{self.model}: {problem}; use the run's own")

    def require_writable(self, config: Config, checkpoint: Path | None = None) -> None:
        """Raise InputError if something stands where the run would write. Files may be replaced if a run has begun in
        this folder, or if the checkpoint to resume from lies in it."""
        replaceable = self.has_run() or (checkpoint is not None and checkpoint.resolve().parent == self.path.resolve())
        for path in (*self.files, *map(self.kept, config.train.keep_epochs)):
            if problem := obstacle(path):
                raise InputError(f"{path}: {problem}; choose another --output")
            if path.exists() and not replaceable:
                raise InputError(f"{path}: already exists but belongs to no run; choose another --output")

    def create(self, config: Config, data: ReIDData, device: str, step: int) -> None:
        """Lock the folder, write the record and the configuration, and drop log lines after `step`. Raises InputError
        if another process trains there, if it holds another run or damaged files, or if it cannot be written."""
        make_folder(self.path)
        self._lock = lock(self.path / "lock")
        earlier = self.read_record() if self.has_run() else None
        same_pictures = earlier is None or data.has_checksum(earlier.data.checksum)
        if earlier and (keys := self.differing(earlier, config, same_pictures, FREE_KEYS)):
            self._lock.release()  # so that this process can resume that run
            raise InputError(f"{self.path}: holds a run with another {first_few(keys)}; choose another --output")
        rows = read_metrics(self.metrics)
        record = _record(config, data, device, earlier)
        if config.train.tensorboard:
            old = self.path / earlier.events if earlier and earlier.events else None
            if old and not obstacle(old) and obstacle(old.parent) == FOLDER:
                old.unlink(missing_ok=True)  # its rows are written to a new one
            host = re.sub(r"[^0-9A-Za-z.-]", "_", socket.gethostname())
            name = f"events.out.tfevents.{int(time.time())}.{host}.{os.getpid()}.ms_vireid"
            record["events"] = f"tensorboard/{name}"
        write_json(self.record, record)  # first: it marks the other files as a run's
        save_config(config, self.config)
        rows = [row for row in rows if row["step"] <= step]
        if self.metrics.exists():
            write_text(self.metrics, "".join(f"{json.dumps(sealed(row))}\n" for row in rows))
        if config.train.tensorboard:
            from ms_vireid.engine.events import Events  # needs the optional package tensorboard

            self._events = Events(self.path / record["events"], rows)

    def record_as_written(self, lines: list[str]) -> None:
        """Record what runs without its kernel, as lines that say why."""
        record = self.read_record()
        if new := [line for line in lines if line not in record.as_written]:
            write_json(self.record, record.model_dump() | {"as_written": [*record.as_written, *new]})

    def append_metrics(self, row: dict) -> None:
        append_line(self.metrics, json.dumps(sealed(row)))
        if self._events:
            self._events.append(row)

    def evaluations(self) -> list[dict]:
        """Return every evaluation during training, with its epoch, in order."""
        rows = read_metrics(self.metrics)
        return [{"epoch": row["epoch"], **row["evaluation"]} for row in rows if "evaluation" in row]


def _record(config: Config, data: ReIDData, device: str, earlier: RunRecord | None) -> dict:
    """The content of run.json. device: in words. earlier: the record of a run that is resumed."""
    packages = "mindspore", "numpy", "pillow", "pydantic"
    splits = {"train": data.train, "test": data.test}
    sizes = {name: {"pictures": len(split), "identities": split.num_identities} for name, split in splits.items()}
    checksum = earlier.data.checksum if earlier else data.checksum
    return {
        "command": [sys.executable, *sys.orig_argv[1:]],  # not sys.argv, which `ms-vireid train` changes
        "seed": config.seed,
        "device": device,
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {"ms_vireid": project_version()} | {package: version(package) for package in packages},
        "git_commit": git_commit(),
        "data": {"name": data.name, "root": str(data.root.resolve()), **sizes, "checksum": checksum},
        "config": dump_config(config),
        "earlier_commands": [*earlier.earlier_commands, earlier.command] if earlier else [],
        "events": earlier and earlier.events,
    }


def data_config(config: DataConfig, run: RunFolder, root: str | None) -> DataConfig:
    """Return the configuration with the folder to read from: `root`, else the one in run.json. Raises InputError
    without either. A synthetic set that was removed is generated again in its default folder."""
    if root is not None:
        return config.model_copy(update={"root": expand_user(root)})
    if not run.has_run():
        raise InputError(f"{run.path}: is not a run folder that says where the data set is; give --data-root FOLDER")
    recorded = Path(run.read_record().data.root)
    generate = config.name == "synthetic" and not (recorded / MARKER).exists()
    return config.model_copy(update={"root": None if generate else recorded})


def check_outside_data(output: Path | None, option: str, data: ReIDData, *runs: RunFolder) -> None:
    """Raise InputError if `output` is a picture of the data set or lies in its folder. It may lie in a folder of
    `runs`, even if that is in the data set's."""
    if output is not None:
        in_run = any(output.resolve().parent == run.path.resolve() for run in runs)
        check_outside(output, option, data.pictures if in_run else [data.root, *data.pictures])


def require_readable_log(config: Config, steps: int) -> None:
    """Raise InputError for a run of more steps, or with more lines of metrics.jsonl, than are read again."""
    if steps >= 2**31:
        raise InputError(f"{steps:,} steps are more than {2**31 - 1:,}; lower the stages' epochs or train.iterations")
    often = config.train.evaluate_every
    lines = steps // config.train.log_steps + (config.epochs // often if often else 0)
    most = _MAX_BYTES // (_NUMBER_BYTES * (len(config.terms) + _OTHER_NUMBERS))
    if lines > most:
        what = f"train.log_steps={config.train.log_steps} train.evaluate_every={often}"
        raise InputError(f"{what}: metrics.jsonl would have {lines:,} lines, more than {most:,}; log or evaluate less")


def read_metrics(path: Path) -> list[dict]:
    """Read the rows of a metrics.jsonl, except a last line that is incomplete; no file has no rows. Raises InputError
    for any other line that is damaged or not of metrics, and for something other than a file."""
    rows, names = [], set()
    if not path.exists():
        return rows
    with open_file(path, METRICS, _MAX_BYTES) as file:
        for number, line in enumerate(iter(partial(file.readline, _MAX_LINE_BYTES), b""), 1):
            if row := _row(line):
                rows.append(row)
                names |= row.keys() | row.get("evaluation", {}).keys()
            elif line.endswith(b"\n") or not _UNFINISHED.fullmatch(line):
                raise InputError(f"{path}:{number}: is not a line of metrics; remove it, or give another run folder")
            if len(names) > _MAX_NAMES:
                raise InputError(f"{path}:{number}: has more than {_MAX_NAMES} names so far; give another run folder")
    return rows


def _row(line: bytes) -> dict | None:
    """Parse a line of metrics.jsonl: numbers by name, and perhaps an evaluation. None for anything else."""
    try:
        row = unsealed(json.loads(line))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(evaluation := row.get("evaluation", {}), dict):
        return None
    has_place = all(type(n := row.get(name)) is int and 0 <= n < 2**31 for name in ("step", "epoch"))
    numbers = [*(value for name, value in row.items() if name != "evaluation"), *evaluation.values()]
    has_numbers = all(type(n) in (int, float) and abs(n) < _BEYOND_FLOAT32 for n in numbers)
    return row if has_place and has_numbers else None


def _changed(tree: dict, where: Path, config: Config, free: tuple[str, ...]) -> list[str]:
    """List the keys in which a stored configuration differs from this one, except those that begin with one of `free`.
    Raises InputError, which names the file `where`, if it is not a configuration."""
    if config.data.sixteen_bit == "measured":  # the stored range was measured over the pictures, which have a checksum
        free = (*free, "data.sixteen_bit")
    stored = check_config(tree, str(where))
    return differing_keys(flat(dump_config(stored)), flat(dump_config(config)), free)


def require_same_run(
    checkpoint: Checkpoint, config: Config, data: ReIDData | None, steps: int, devices: int = 1
) -> None:
    """Raise InputError unless a checkpoint is a complete training state of this run: the same configuration, pictures
    and number of devices, at most at its last step. data: None in a process that leaves the pictures to another. steps:
    of the whole run."""
    path, meta = checkpoint.path, checkpoint.meta
    instead = f"or train a new run from it: model.pretrained={path}"
    if "step" not in meta:
        raise InputError(f"{path}: holds no training state to resume from; resume from last.safetensors, {instead}")
    if changed := _changed(meta["config"], path, config, FREE_KEYS):
        raise InputError(f"{path}: was written with another {first_few(changed)}; use the run's config.yaml, {instead}")
    if data and not data.has_checksum(meta["data_checksum"]):
        run, root = RunFolder(path.parent), data.root
        is_there = run.has_run() and Path(run.read_record().data.root).resolve() == root.resolve()
        problem = f"the files under {root} have changed since" if is_there else f"was not trained on {root}"
        raise InputError(f"{path}: {problem}; give the run's own data set, {instead}")
    needed = ("best", "devices", "loss_scale") if config.train.amp == "float16" else ("best", "devices")
    if missing := [key for key in needed if key not in meta]:
        raise InputError(f"{path}: its training state lacks {', '.join(missing)}; resume from another copy")
    if meta["step"] > steps:
        raise InputError(f"{path}: is at step {meta['step']} of a run of {steps}; resume from another copy")
    if meta["devices"] != devices:
        how = f"with msrun --worker_num={meta['devices']}" if meta["devices"] > 1 else "without msrun"
        raise InputError(f"{path}: written by {meta['devices']} processes, and this run has {devices}; resume {how}")
