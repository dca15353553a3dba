"""A table of results across data sets: a row for each model, with the set that it was trained on, and columns for each
set that it was tested on."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, Field, FiniteFloat, model_validator

from ms_vireid.command.errors import InputError
from ms_vireid.engine.run_folder import Metrics, StoredEvaluation, require_mean
from ms_vireid.evaluation.metrics_table import COLUMNS, cell
from ms_vireid.evaluation.protocol import OF_THRESHOLD
from ms_vireid.files.checks import note, read_json

METRICS = ("rank1", "map", "minp")
UNNAMED = {"trained_on", "split", "trials", *OF_THRESHOLD}  # of an evaluation, in the name of its column
TITLE = "Results across data sets, in percent"


class _Run(StoredEvaluation):
    checkpoint: str
    data_root: str
    trained_root: str | None = None
    pictures: str = ""  # `pictures_checksum` of those tested on; not in an earlier version's
    evaluated: dict[str, str | int | FiniteFloat | bool]

    @property
    def folders(self) -> dict[str, Path]:
        """Where the sets are that are people's own folders, by their keys in `evaluated`."""
        roots = {"data": self.data_root, "trained_on": self.trained_root}
        return {key: Path(root) for key, root in roots.items() if root and self.evaluated[key] == "folder"}


class _Result(BaseModel):
    """A file of `evaluate.py --json`: one checkpoint's evaluation, or the mean over several."""

    mean: Metrics
    std: Metrics
    runs: list[_Run] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _as_several(cls, tree: object) -> object:
        one = isinstance(tree, dict) and "evaluated" in tree
        return {"mean": tree.get("mean"), "std": tree.get("std"), "runs": [tree]} if one else tree

    @model_validator(mode="after")
    def _sums_up_its_runs(self) -> "_Result":
        if len(self.runs) > 1:
            require_mean(self.mean, self.std, [run.mean for run in self.runs])
        return self

    def row(self, folders: Mapping[Path, str]) -> tuple[str, ...]:
        """What the models were trained on, their names, and which they are. folders: how sets of folders are called."""
        files = [Path(run.checkpoint) for run in self.runs]
        names = {file.parent.name if file.suffix else file.name for file in files}
        trained_on = {_set(run, "trained_on", folders) for run in self.runs}
        return _listed(trained_on), _listed(names), *sorted(run.sha256 for run in self.runs)

    def column(self, folders: Mapping[Path, str]) -> str:
        """The set that was tested on and how it was searched, in words."""
        searched = {name: value for name, value in self.runs[0].evaluated.items() if name not in UNNAMED}
        sets = {_set(run, "data", folders) for run in self.runs}
        direction = searched.pop("direction")
        del searched["data"]
        words = (name if value is True else f"{name} {value}" for name, value in searched.items() if value is not False)
        return ", ".join([_listed(sets), direction, *sorted(words)])

    def cell(self, metric: str) -> str:
        varied = len(self.runs) > 1 or len(self.runs[0].trials) > 1
        return cell(metric, self.mean, self.std if varied else {})


def across_sets(paths: Iterable[Path]) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Headings, of two levels, and rows, from files of `evaluate.py --json`. Raises InputError for another file, and if
    two are of the same cell."""
    results = {path: _read(path) for path in paths}
    folders = _short(folder for result in results.values() for run in result.runs for folder in run.folders.values())
    cells: dict[tuple, tuple[Path, _Result]] = {}
    for path, result in results.items():
        earlier, _ = cells.setdefault((result.row(folders), result.column(folders)), (path, result))
        if earlier != path:
            raise InputError(f"{earlier} and {path}: hold the same model's results on the same set; give one of them")
    _note_other_pictures((name, path, result) for (_, name), (path, result) in cells.items())
    rows, columns = (dict.fromkeys(key[axis] for key in cells) for axis in (0, 1))
    headings = [("", "trained on"), ("", "model"), *((name, COLUMNS[metric]) for name in columns for metric in METRICS)]
    return headings, [
        [*row[:2], *(cells[row, name][1].cell(m) if (row, name) in cells else "-" for name in columns for m in METRICS)]
        for row in rows
    ]


def _note_other_pictures(results: Iterable[tuple[str, Path, _Result]]) -> None:
    """Say which results in a column are not of the same pictures, such as where a model's own people are left out."""
    first: dict[tuple, tuple[Path, str]] = {}
    for name, path, result in results:
        for run in result.runs:
            earlier, pictures = first.setdefault((name, run.evaluated.get("split")), (path, run.pictures))
            if path != earlier and not run.pictures == pictures != "":
                are = "are" if run.pictures and pictures else "may be (results of an earlier version do not say)"
                note(f"{earlier} and {path}", f"{are} of different pictures in one column, {name}; compare with care")
                break


def _read(path: Path) -> _Result:
    result = read_json(path, _Result, "evaluate.py", "give a file of its --json")
    for run in result.runs:
        if missing := {"trained_on", "data", "direction"} - run.evaluated.keys():
            raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; make it again with evaluate.py --json")
    return result


def _listed(names: Iterable[str]) -> str:
    """Names in an order of their own: files list models and keys in any."""
    return ", ".join(sorted(filter(None, names)))


def _set(run: _Run, key: str, folders: Mapping[Path, str]) -> str:
    """The name of the set that a model was tested ("data") or "trained_on"."""
    name = str(run.evaluated[key])
    return f"{name} {folders[run.folders[key]]}" if key in run.folders else name


def _short(folders: Iterable[Path]) -> dict[Path, str]:
    """Call each folder by its last part, or as many as tell it from the others."""
    ends = {folder: ["/".join(folder.parts[-n:]) for n in range(1, len(folder.parts))] for folder in folders}
    everyone = Counter(end for of_one in ends.values() for end in of_one)
    return {folder: next((end for end in of_one if everyone[end] == 1), str(folder)) for folder, of_one in ends.items()}
