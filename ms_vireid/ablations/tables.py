"""Tables as data, each row a recipe: the papers', with their printed numbers, in `configs/ablations/TABLE/table.yaml`,
and a user's own, in any file of the same form."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ms_vireid.command.errors import InputError, printable
from ms_vireid.config import CONFIG_ROOT, Positive, Section, load_config
from ms_vireid.config.base import between, choice
from ms_vireid.config.losses import LossConfig
from ms_vireid.config.reading import Schema, check_config, read_yaml
from ms_vireid.files.checks import require_folder_name

TABLES = CONFIG_ROOT / "ablations"
REGDB_SPLITS = 10


def _one_line(text: str) -> str:
    if printable(text) != text:
        raise ValueError("must be one line of printable text")
    return text


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=100)]  # also a folder's name
Line = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_line)]
Word = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_one_line)]  # of a command line: a file
Percent = Annotated[float, Field(ge=0, le=100)]
Metric = Literal["rank1", "rank5", "rank10", "rank20", "map", "minp"]
DataSet = Literal["sysu_mm01", "regdb", "llcm", "synthetic", "folder"]
LossName = Literal[tuple(LossConfig.model_fields)]


class Search(Section):
    """Options of `evaluate.py`, for a search other than the one that training ends with."""

    data: DataSet | None = None  # another set to test on
    mode: Literal["all", "indoor"] | None = None
    shots: choice(1, 10) | None = None
    direction: Literal["infrared-to-visible", "visible-to-infrared"] | None = None
    corrupted: bool = False
    flip: bool = False
    renormalise: bool = False
    rerank: bool = False

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of `evaluation` that it sets."""
        return self.model_dump(exclude={"data", "corrupted"}, exclude_defaults=True)

    @property
    def name(self) -> str:
        shots = None if self.shots is None else f"shots{self.shots}"
        return "-".join(filter(None, (self.data, self.mode, shots, self.direction, *self._switches())))

    def options(self) -> list[str]:
        named = (("--data", self.data), ("--mode", self.mode), ("--shots", self.shots), ("--direction", self.direction))
        options = [word for option, value in named if value is not None for word in (option, str(value))]
        return [*options, *(f"--{switch}" for switch in self._switches())]

    def _switches(self) -> list[str]:
        return [name for name in ("corrupted", "flip", "renormalise", "rerank") if getattr(self, name)]


class Column(Section):
    """A group of a table's columns: the metrics of one search on one data set, in the paper's order."""

    name: Line
    data: DataSet  # trained on
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)]
    search: Search | None = None  # default: the evaluation that training ends with


class Row(Section):
    name: Name
    label: Line  # as printed; default: the name
    # A file, relative to the table's, or one of the project's, as configs/pmt/sysu.yaml. None: another paper's method,
    # which is not run.
    config: Word | None = None
    configs: dict[DataSet, Word] = Field(default_factory=dict)  # for data sets with their own file
    stand_in: Line | None = None  # what is run in place of another paper's method, and how it differs
    overrides: tuple[Word, ...] = ()  # of the file, as on the command line
    published: tuple[Percent | None, ...] | None = None  # one a column, as printed; None where nothing is

    @model_validator(mode="before")
    @classmethod
    def _labelled(cls, values: Any) -> Any:
        return {"label": values["name"]} | values if isinstance(values, dict) and "name" in values else values

    @property
    def marked_label(self) -> str:
        """The label, with a mark unless the method itself is run here."""
        mark = " (published only)" if self.config is None else " (stand-in)" if self.stand_in else ""
        return self.label + mark


class Table(Section):
    source: Line | None = None  # where it is printed
    title: Line
    seeds: between(1, 100) = 1  # trainings of each row, with consecutive seeds
    splits: between(1, REGDB_SPLITS) | None = None  # train on RegDB's splits 1 to N; None: on data.trial alone
    sets: Annotated[dict[DataSet, list[Word]], Field(min_length=1)]  # each data set with its overrides for all rows
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    @property
    def roots(self) -> list[str]:
        """The data sets whose folders are asked for: those that are trained on, then those that are only tested on."""
        tested = (column.search.data for column in self.columns if column.search and column.search.data)
        return list(dict.fromkeys([*self.sets, *tested]))

    @property
    def heading(self) -> str:
        return f"{self.source}: {self.title}" if self.source else self.title

    def check(self) -> None:
        for kind, names in (("rows", self.rows), ("columns", self.columns)):
            names = [one.name for one in names]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{kind} of the same name ({', '.join(twice)}); give each its own")
        if idle := self.sets.keys() ^ {column.data for column in self.columns}:
            raise ValueError(f"sets and the columns' data name different data sets ({', '.join(sorted(idle))})")
        if self.splits and "regdb" not in self.sets:
            raise ValueError("splits is for RegDB, not among the sets; leave it out")
        if taken := sorted({row.name for row in self.rows} & {"table.md", "table.json"}):
            raise ValueError(f"row {taken[0]} is named like a file of the table's folder; rename it")
        numbers = sum(len(column.metrics) for column in self.columns)
        for row in self.rows:
            if row.published and len(row.published) != numbers:
                problem = f"row {row.name} has {len(row.published)} published numbers for {numbers} metrics"
                raise ValueError(f"{problem}; give one for each, null where none is printed")
            if row.config is None and (row.published is None or row.configs or row.overrides):
                raise ValueError(f"row {row.name} has no config; name its file")

    def chosen_rows(self, names: list[str] | None) -> list[Row]:
        """The rows of these names, in the table's order; None: all. Raises InputError for one that is not run."""
        ours = [row.name for row in self.rows if row.config]
        for name in names or ():
            if name not in ours:
                raise InputError(f"--rows {name}: the table has no row of that name to run; it has {', '.join(ours)}")
        return [row for row in self.rows if names is None or row.name in names]

    def published(self, row: Row) -> dict[tuple[str, Metric], float | None]:
        """The row's printed numbers, in percent, by column name and metric."""
        numbers = iter(row.published or ())
        return {(column.name, metric): next(numbers, None) for column in self.columns for metric in column.metrics}


class Demo(Section):
    """The changes of `--demo` to the rows of one model."""

    epochs: Positive  # in all; stages are shortened in proportion
    overrides: tuple[str, ...]
    weights: dict[LossName, float] = Field(default_factory=dict)  # of the losses that a stage has


def list_tables() -> list[str]:
    return sorted(path.parent.name for path in TABLES.glob("*/table.yaml"))


def load_table(name: str) -> Table:
    """Load one of the project's tables by name, or a user's by file. Raises InputError if it is missing or does not fit
    the schema."""
    if not _is_file(name) and name not in list_tables():
        raise InputError(f"no table '{name}'; choose one of {', '.join(list_tables())}, or give your own .yaml file")
    return _read(table_file(name), Table)


def table_file(name: str) -> Path:
    return Path(name) if _is_file(name) else TABLES / name / "table.yaml"


def folder_name(name: str) -> str:
    """Name a table's folder of runs after its file, or after the folder of a table.yaml. Raises InputError if no folder
    can have that name."""
    path = table_file(name).resolve()
    return require_folder_name(path.parent.name if path.stem == "table" else path.stem, name)


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def load_demo(model: str) -> Demo:
    """Load the demo of a model by name. Raises InputError if there is none."""
    path = TABLES / "demo" / f"{model}.yaml"
    if not path.is_file():
        raise InputError(f"--demo: no demo of model.name={model} (looked for {path})")
    return _read(path, Demo)


def config_of(name: str, row: Row, data_set: str | None = None) -> Path:
    """The row's file for this data set, or for all. name: the table's."""
    file = Path(row.configs.get(data_set, row.config))
    path = table_file(name).parent / file
    ours = file.parts[:1] == ("configs",) and not path.exists()
    return (CONFIG_ROOT.parent / file if ours else path).resolve()


def demo_overrides(path: Path, overrides: list[str]) -> list[str]:
    """List the overrides with which `--demo` changes a recipe."""
    config = load_config(path, overrides)
    demo = load_demo(config.model.name)
    changes = list(demo.overrides)
    for i, epochs in enumerate(shortened([stage.epochs for stage in config.stages], demo.epochs)):
        losses = config.stages[i].losses.terms()
        changes.append(f"stages.{i}.epochs={epochs}")
        changes += [f"stages.{i}.losses.{name}.weight={demo.weights[name]}" for name in demo.weights if name in losses]
    return changes


def shortened(epochs: list[int], total: int) -> list[int]:
    """Shorten stages to `total` epochs in all, in proportion and to one at least; the last takes the rest."""
    first = [max(1, round(total * stage / sum(epochs))) for stage in epochs[:-1]]
    return [*first, max(1, total - sum(first))]


def _read(path: Path, schema: type[Schema]) -> Schema:
    return check_config(read_yaml(path), str(path), schema)
