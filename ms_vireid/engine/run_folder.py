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

from pydantic import BaseModel, Field

from ms_vireid.command.errors import InputError, the_first
from ms_vireid.command.running import project_version
from ms_vireid.config import (
    FREE_KEYS,
    Config,
    DataConfig,
    differing_keys,
    dump_config,
    expand_user,
    flat,
    save_config,
    stored_config,
)
from ms_vireid.data.records import ReIDData
from ms_vireid.data.synthetic import MARKER
from ms_vireid.devices.host import git_commit, processor_name
from ms_vireid.devices.memory import require_memory
from ms_vireid.files.checks import file_checksum, open_file, read_json, sealed, unsealed
from ms_vireid.files.weights import Checkpoint
from ms_vireid.files.writing import (
    FOLDER,
    append_line,
    check_apart,
    lock,
    make_folder,
    obstacle,
    remove_left,
    write_json,
    write_text,
)

_EVENTS = r"^tensorboard(-[0-9]+)?/events\.out\.tfevents\.[0-9A-Za-z._-]+$"  # a run's event file, in its folder
_CUT = re.compile(rb"\{[ -~]*")  # a line of JSON that a killed process has not ended
METRICS = "metrics.jsonl of a run"
# Of it: bytes, bytes of a line, names in all, and what is above float32's largest number.
_MOST_BYTES, _LONGEST_LINE, _MOST_NAMES, _TOO_LARGE = 1 << 28, 1 << 14, 50, 2.0**128
_BYTES_IN_MEMORY = 16  # of a byte of it, at most

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Fraction = Annotated[float, Field(ge=0, le=1 + 1e-6, allow_inf_nan=False)]  # a mean is rounded
_Sum = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Metrics = Annotated[dict[str, _Fraction], Field(max_length=_MOST_NAMES)]


class _Split(BaseModel):
    pictures: _Count
    identities: _Count


class _DataSet(BaseModel):
    name: str | None = None
    root: str
    train: _Split | None = None
    test: _Split | None = None
    checksum: str | None = None


class RunRecord(BaseModel):
    """run.json; what older runs lack is None."""

    command: list[str]
    earlier_commands: list[list[str]] = []
    seed: _Count | None = None
    device: str | None = None
    processor: str | None = None
    cores: _Count | None = None
    platform: str | None = None
    python: str | None = None
    versions: dict[str, str] = {}
    git_commit: str | None = None
    data: _DataSet
    config: dict
    events: Annotated[str, Field(pattern=_EVENTS)] | None = None


class Evaluation(BaseModel):
    """One evaluation, as in JSON: metrics as fractions."""

    mean: _Metrics
    std: _Metrics
    trials: list[_Metrics]
    num_queries: _Count
    num_gallery: _Count
    sha256: _Sum | None = None  # of the model's file; what older versions wrote lacks it


class Result(BaseModel):
    """result.json"""

    trained: _Metrics
    untrained: _Metrics | None = None
    chance: _Metrics | None = None
    protocol: Evaluation


class RunFolder:
    """The files of a run, of which last.safetensors is the one to resume from."""

    def __init__(self, path: Path | str):
        self.path = path = Path(path)
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.last = path / "last.safetensors"
        self.model = path / "model.safetensors"
        self.result = path / "result.json"
        self._lock = None  # keeps other processes out, once this one trains here
        self._events = None  # for TensorBoard, if that is asked for

    def kept(self, epoch: int) -> Path:
        """The weights after an epoch of `train.keep_epochs`, 0 being before the first."""
        return self.path / f"epoch-{epoch}.safetensors"

    @property
    def files(self) -> tuple[Path, ...]:
        """What a run writes here, besides what `kept` names."""
        return self.record, self.config, self.metrics, self.last, self.model, self.result

    def checkpoint(self, *paths: Path) -> Path | None:
        """The first of `paths` that is there, as it is or as `.ckpt`, which earlier versions wrote."""
        return next((one for path in paths for one in (path, path.with_suffix(".ckpt")) if one.exists()), None)

    def begun(self) -> bool:
        """Whether a run has written here."""
        return self.record.exists()

    def read_record(self) -> RunRecord:
        """run.json; raises InputError if it is not what `create` writes."""
        return read_json(self.record, RunRecord)

    def differing(
        self, record: RunRecord, config: Config, data_checksum: str | None, free: tuple[str, ...]
    ) -> list[str]:
        """Keys in which the recorded run differs from `config` on these pictures, without those that begin with one of
        `free`. Raises InputError if its record is damaged."""
        keys = _changed(record.config, self.record, config, free)
        return keys if record.data.checksum == data_checksum else [*keys, "data's pictures"]

    def require_evaluated(self, path: Path, evaluation: Evaluation) -> None:
        """Raise InputError if the run's model is not the one that the evaluation in `path` is of."""
        model = self.checkpoint(self.model)
        if model and evaluation.sha256 not in (None, file_checksum(model)):
            raise InputError(f"{model}: is not the model that {path.name} is of, by its SHA-256; use the run's own")

    def require_own(self, config: Config, checkpoint: Path | None = None) -> None:
        """Raise InputError if something is in the place of a file that the run would write, unless a run has begun
        here, or the checkpoint to go on from lies here, and it is a file that may be written."""
        own = self.begun() or (checkpoint is not None and checkpoint.resolve().parent == self.path.resolve())
        for path in (*self.files, *map(self.kept, config.train.keep_epochs)):
            if problem := obstacle(path):
                raise InputError(f"{path}: {problem}; choose another --output")
            if path.exists() and not own:
                raise InputError(f"{path}: is there, and no run that wrote it; choose another --output")

    def create(self, config: Config, data: ReIDData, device: str, step: int) -> None:
        """Take the folder for this process alone, write all that is needed to repeat the run, and forget what was
        logged after `step`. Raises InputError if another process trains into it, it holds another run, what a run wrote
        there is damaged, or it cannot be written."""
        make_folder(self.path)
        self._lock = lock(self.path / "lock")
        earlier = self.read_record() if self.begun() else None
        if earlier:
            checksum = earlier.data.checksum and data.checksum  # an earlier version kept none
            if keys := self.differing(earlier, config, checksum, FREE_KEYS):
                self._lock.release()  # that run may go on, in this process too
                raise InputError(f"{self.path}: holds a run with another {the_first(keys)}; choose another --output")
        rows = read_metrics(self.metrics)
        remove_left(self.path)
        splits = {"train": data.train, "test": data.test}
        sizes = {name: {"pictures": len(one), "identities": one.num_identities} for name, one in splits.items()}
        root, packages = str(data.root.resolve()), ("mindspore", "numpy", "pillow", "pydantic")
        record = {
            "command": [sys.executable, *sys.orig_argv[1:]],  # `ms-vireid train` changes sys.argv
            "seed": config.seed,
            "device": device,
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {"ms_vireid": project_version()} | {package: version(package) for package in packages},
            "git_commit": git_commit(),
            "data": {"name": data.name, "root": root, **sizes, "checksum": data.checksum},
            "config": dump_config(config),
            "earlier_commands": [*earlier.earlier_commands, earlier.command] if earlier else [],
            "events": earlier and earlier.events,
        }
        if config.train.tensorboard:
            self._forget_events(earlier)
            record["events"] = self._new_events()
        write_json(self.record, record)  # first: it says that the other files are a run's
        save_config(config, self.config)
        rows = [row for row in rows if row["step"] <= step]
        if self.metrics.exists():
            write_text(self.metrics, "".join(f"{json.dumps(sealed(row))}\n" for row in rows))
        if config.train.tensorboard:
            from ms_vireid.engine.events import Events  # only now: the package is an extra

            self._events = Events(self.path / record["events"], rows)

    def _forget_events(self, earlier: RunRecord | None) -> None:
        """Remove the event file that the run's record names: its rows are written anew."""
        if earlier and earlier.events:
            path = self.path / earlier.events
            if not obstacle(path) and obstacle(path.parent) == FOLDER:
                path.unlink(missing_ok=True)

    def _new_events(self) -> str:
        """Where the next event file goes: into tensorboard/, or the first of tensorboard-2/, ... that holds nothing."""
        folder, number = self.path / "tensorboard", 1
        while os.path.lexists(folder) and (obstacle(folder) != FOLDER or any(folder.iterdir())):
            number += 1
            folder = self.path / f"tensorboard-{number}"
        host = re.sub(r"[^0-9A-Za-z.-]", "_", socket.gethostname())
        return f"{folder.name}/events.out.tfevents.{int(time.time())}.{host}.{os.getpid()}.ms_vireid"

    def append_metrics(self, row: dict) -> None:
        append_line(self.metrics, json.dumps(sealed(row)))
        if self._events:
            self._events.append(row)

    def evaluations(self) -> list[dict]:
        """Every evaluation during training, with its epoch, in order."""
        rows = read_metrics(self.metrics)
        return [{"epoch": row["epoch"], **row["evaluation"]} for row in rows if "evaluation" in row]


def data_config(config: DataConfig, run: RunFolder, root: str | None) -> DataConfig:
    """The configuration with the folder to read from: `root`, else the one in run.json; raises InputError without
    either. A synthetic set that is gone is made anew in its usual place."""
    if root is not None:
        return config.model_copy(update={"root": expand_user(root)})
    if not run.begun():
        raise InputError(f"{run.path}: is not a run folder that says where the data set is; give --data-root FOLDER")
    recorded = Path(run.read_record().data.root)
    anew = config.name == "synthetic" and not (recorded / MARKER).exists()
    return config.model_copy(update={"root": None if anew else recorded})


def check_apart_from_data(output: Path | None, option: str, data: ReIDData, *runs: RunFolder) -> None:
    """Raise InputError if `output` is a picture of the data set, or lies in its folder, unless that is in one of the
    runs' own folders."""
    if output is not None:
        own = any(output.resolve().parent == run.path.resolve() for run in runs)
        check_apart(output, option, data.pictures if own else [data.root, *data.pictures])


def read_metrics(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl, without a last line that is cut off; none if there is no file. Raises InputError for
    another line that is not of metrics, or damaged, and for something other than a file."""
    rows: list[dict] = []
    names: set[str] = set()
    if not path.exists():
        return rows
    with open_file(path, METRICS, _MOST_BYTES) as file:
        size = path.stat().st_size
        require_memory(_BYTES_IN_MEMORY * size, f"{path}: reading it", "use a machine with more memory")
        for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE), b""), 1):
            if row := _row(line):
                rows.append(row)
                names |= row.keys() | row.get("evaluation", {}).keys()
            elif line.endswith(b"\n") or not _CUT.fullmatch(line):
                raise InputError(f"{path}:{number}: is not a line of metrics; remove it, or give another run folder")
            if len(names) > _MOST_NAMES:
                raise InputError(f"{path}:{number}: has more than {_MOST_NAMES} names so far; give another run folder")
    return rows


def _row(line: bytes) -> dict | None:
    """A line of metrics.jsonl: numbers by name, and perhaps an evaluation's; None if it is something else."""
    try:
        row = unsealed(json.loads(line))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(evaluation := row.get("evaluation", {}), dict):
        return None
    counted = all(type(n := row.get(name)) is int and 0 <= n < 2**31 for name in ("step", "epoch"))
    numbers = [*(value for name, value in row.items() if name != "evaluation"), *evaluation.values()]
    return row if counted and all(type(n) in (int, float) and abs(n) < _TOO_LARGE for n in numbers) else None


def _changed(tree: dict, where: Path, config: Config, free: tuple[str, ...]) -> list[str]:
    """In which keys a stored configuration is not this one, without those that begin with one of `free`; raises
    InputError, which names `where` it was stored, if it is none."""
    stored = stored_config(tree, str(where))  # with the keys that are newer than it
    return differing_keys(flat(dump_config(stored)), flat(dump_config(config)), free)


def require_same_run(
    checkpoint: Checkpoint, config: Config, root: Path, data_checksum: str, steps: int, devices: int = 1
) -> None:
    """Raise InputError unless a checkpoint is a whole training state of this configuration, of `steps` steps in all, on
    these pictures and as many devices."""
    path, meta = checkpoint.path, checkpoint.meta
    if "step" not in meta:
        raise InputError(f"{path}: holds no training state to resume from; resume from last.safetensors")
    if changed := _changed(meta["config"], path, config, FREE_KEYS):
        raise InputError(f"{path}: was written with another {the_first(changed)}; use the run's config")
    if meta["data_checksum"] != data_checksum:
        raise InputError(f"{path}: the files under {root} have changed since; start a new run")
    needed = ("best", "devices", "loss_scale") if config.train.amp == "float16" else ("best", "devices")
    if lacking := [key for key in needed if key not in meta]:
        raise InputError(f"{path}: its training state lacks {', '.join(lacking)}; resume from another copy")
    if meta["step"] > steps:
        raise InputError(f"{path}: is at step {meta['step']} of a run of {steps}; resume from another copy")
    if meta["devices"] != devices:
        how = f"with msrun --worker_num={meta['devices']}" if meta["devices"] > 1 else "without msrun"
        raise InputError(f"{path}: written by {meta['devices']} processes, and this run has {devices}; resume {how}")
