"""One self-contained HTML page of a run: its results, what the model computes on the test set, and its recipe."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ms_vireid.ablations import published
from ms_vireid.command.errors import InputError, first_few
from ms_vireid.config import FREE_KEYS, Config, check_config, dump_config
from ms_vireid.config.reading import dump_yaml
from ms_vireid.engine.run_folder import Result, RunFolder, RunRecord, StoredEvaluation, read_metrics
from ms_vireid.evaluation.metrics_table import COLUMNS
from ms_vireid.files.checks import read_json
from ms_vireid.visualization.curves import draw_curves, read_curves
from ms_vireid.visualization.inline import drawing

MARK = b"<caption>run.json of the run folder</caption>"  # in page.html: identifies a page of ours
DATA_SETS = {
    "sysu_mm01": "SYSU-MM01",
    "regdb": "RegDB",
    "llcm": "LLCM",
    "synthetic": "the synthetic set",
    "folder": "a folder of pictures",
}


class RunView:
    """A run folder's files other than checkpoints: record (run.json), config, result (result.json, or None), further
    (the searches that `ablate.py` evaluated).

    Raises:
        InputError: the folder holds no run, a file that train.py did not write, or another model's result.
    """

    def __init__(self, folder: RunFolder):
        if not folder.has_run():
            raise InputError(f"{folder.path}: holds no run (no run.json); give a run folder of train.py")
        self.folder = folder
        self.record = folder.read_record()
        self.config: Config = check_config(self.record.config, str(folder.record))
        self.result = read_json(folder.result, Result) if folder.result.exists() else None
        if self.result is not None and self.config.evaluation.compare_untrained:
            for name in ("untrained", "chance"):
                if not getattr(self.result, name):
                    problem = f"lacks '{name}', which evaluation.compare_untrained asked for"
                    raise InputError(f"{folder.result}: {problem}; use another copy")
        names = published.further_results(folder, self.config)
        self.further = [(search, name, read_json(folder.path / name, StoredEvaluation)) for search, name in names]
        if self.result is not None:
            folder.require_evaluated(folder.result, self.result.protocol)
        for _, name, evaluation in self.further:
            folder.require_evaluated(folder.path / name, evaluation)
        self.name = folder.path.resolve().name
        self.data_set = DATA_SETS[self.config.data.name]

    @property
    def checkpoint(self) -> Path | None:
        """The selected weights, or those of an unfinished training; None before the first checkpoint."""
        return next((path for path in (self.folder.model, self.folder.last) if path.exists()), None)

    def require_own(self, record: dict) -> None:
        """Raise InputError unless this run wrote the checkpoint, which has that record."""
        path = self.checkpoint
        config = check_config(record["config"], str(path))
        same_pictures = record.get("data_checksum", self.record.data.checksum) == self.record.data.checksum
        if keys := self.folder.differing(self.record, config, same_pictures, FREE_KEYS):
            raise InputError(f"{path}: belongs to a run with another {first_few(keys)}; use the run's own")

    def unfinished(self) -> str | None:
        """Describe the progress of a run without a result; None if it has one."""
        if self.result is not None:
            return None
        logged = read_metrics(self.folder.metrics)
        if not logged:
            return "no step has been logged yet"
        return f"epoch {logged[-1]['epoch']} of {self.config.epochs}, step {logged[-1]['step']} so far"


def render(run: RunView, test: dict | None, notes: list[str]) -> str:
    """Render the page, which refers to no other file and no address. Raises InputError for a file that train.py did
    not write.

    test: the result of `findings.find`; None without a checkpoint or a test set. notes: why, and other remarks.
    """
    panels, no_curves = _curves(run)
    loader, blocks = PackageLoader("ms_vireid.visualization", "."), {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **blocks)
    return environment.get_template("page.html").render(
        run=run,
        tables=_result_tables(run),
        result_notes=_result_notes(run),
        panels=panels,
        no_curves=no_curves,
        notes=notes,
        test=test,
        facts=_facts(run.record),
        sections=_sections(run.config),
    )


def _result_tables(run: RunView) -> list[dict]:
    """Make a table for each evaluated search: our metrics, the untrained model's, chance, and the published ones."""
    config = run.config
    searches = [(search, evaluation, {}) for search, _, evaluation in run.further]
    if run.result is not None:
        others = {name: metrics for name in ("untrained", "chance") if (metrics := getattr(run.result, name))}
        searches.insert(0, (published.search_key(config.data.name, config.evaluation), run.result.protocol, others))
    printed = published.published_results(config)
    return [
        _result_table(run.data_set, search, result, others, [one for one in printed if one.search == search])
        for search, result, others in searches
    ]


def _result_table(
    data_set: str, search: published.SearchKey, result: StoredEvaluation, others: Mapping, printed: Sequence
) -> dict:
    """Fill caption, headings and lines: each line has its origin, a label, and a text for each metric, in percent."""
    columns = [name for name in COLUMNS if name in result.mean]
    mean = {name: 100 * value for name, value in result.mean.items()}
    galleries = len(result.trials)
    deviations = {name: f" ± {100 * value:.2f}" if galleries > 1 else "" for name, value in result.std.items()}
    lines = [("ours", "trained", [f"{mean[name]:.2f}{deviations[name]}" for name in columns])]
    for name, metrics in others.items():
        whose, label = ("chance", "random rankings") if name == "chance" else ("ours", name)
        lines.append((whose, label, [_number(100 * metrics[n]) for n in columns]))
    for one in printed:
        gaps = [mean[n] - one.metrics[n] if n in one.metrics else None for n in columns]
        lines.append(("published", f"{one.label}: {one.where}", [_number(one.metrics.get(n)) for n in columns]))
        lines.append(("difference", "trained minus published", [_number(gap, "+") for gap in gaps]))
    averaged = f"; mean ± standard deviation over {galleries} galleries" if galleries > 1 else ""
    sizes = f"{result.num_queries:,} queries among {result.num_gallery:,} pictures"
    caption = f"{data_set[0].upper()}{data_set[1:]}, {', '.join(search)}, in percent: {sizes}{averaged}."
    return {"caption": caption, "headings": [COLUMNS[name] for name in columns], "lines": lines}


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.2f}"


def _result_notes(run: RunView) -> list[str]:
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
            "“Published” is what the papers print for this recipe, without naming the epoch: PMT's and AGW's "
            f"releases keep the best one on the test set. “Ours” is this run's {config.train.select} epoch."
        )
        if config.data.name == "regdb":
            notes.append(f"The papers average RegDB's ten splits; this run is split {config.data.trial}.")
    else:
        notes.append("Published: none. This recipe is not one of the papers' rows in configs/ablations.")
    return notes


def _curves(run: RunView) -> tuple[list[Markup], str | None]:
    """Draw each loss term, the learning rates and the metrics over the same steps, or say why not."""
    if not run.folder.metrics.exists():
        return [], "nothing has been logged yet"
    try:
        panels = read_curves(run.folder.path)
    except InputError as error:
        return [], str(error)
    last = max(points[-1][0] for curves in panels.values() for points in curves.values())
    drawings = []
    for number, (title, curves) in enumerate(panels.items()):
        figure = draw_curves([{title: curves}], [run.name])
        figure.axes[0].set_xlim(0, last)
        ends = ", ".join(f"{n} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for n, points in curves.items())
        drawings.append(drawing(figure, f"curve{number}", f"{title} over the steps: {ends}"))
    return drawings, None


def _facts(record: RunRecord) -> dict[str, str]:
    """Describe run.json in words, without the configuration; unknown values are left out."""
    data = record.data
    sets = [
        f"{name}: {split.pictures:,} pictures of {split.identities:,} identities"
        for name, split in (("train", data.train), ("test", data.test))
    ]
    versions = {"python": record.python, **record.versions}
    facts = {
        "command": shlex.join(record.command),
        "earlier commands": "\n".join(map(shlex.join, record.earlier_commands)),
        "seed": record.seed,
        "device": record.device,
        "processor": ", ".join(filter(None, (record.processor, f"{record.cores} cores" if record.cores else None))),
        "platform": record.platform,
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "git commit": record.git_commit,
        "data": "; ".join([data.root, *sets]),
        "data checksum": data.checksum,
        "without kernels": "\n".join(record.as_written),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _sections(config: Config) -> dict[str, str]:
    tree = dump_config(config)
    for stage, described in zip(config.stages, tree["stages"], strict=True):
        described["losses"] = {name: described["losses"][name] for name in stage.losses.terms()}
    single = {key: tree.pop(key) for key in list(tree) if not isinstance(tree[key], dict | list)}
    parts = {"single values": single} | {key: {key: value} for key, value in tree.items()}
    return {name: dump_yaml(part) for name, part in parts.items()}
