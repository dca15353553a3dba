"""One self-contained HTML page of a run: what came of it, what the model makes of its test set, and what ran."""

import shlex

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, dump_config
from ms_vireid.engine.run_folder import RunRecord
from ms_vireid.visualization.curves import draw_curves, read_curves
from ms_vireid.visualization.inline import drawing
from ms_vireid.visualization.run_view import RunView, result_notes, result_tables


def render(run: RunView, test: dict | None, notes: list[str]) -> str:
    """The page; it names no other file and no address.

    test: what `findings.find` found; None without a checkpoint or a test set. notes: why, and what else a reader has
    to know of it.

    Raises:
        InputError: a file of the run folder is not what train.py writes.
    """
    panels, no_curves = _curves(run)
    environment = Environment(
        loader=PackageLoader("ms_vireid.visualization", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        run=run,
        tables=result_tables(run),
        result_notes=result_notes(run),
        panels=panels,
        no_curves=no_curves,
        notes=notes,
        test=test,
        facts=_facts(run.record),
        sections=_sections(run.config),
    )


def _curves(run: RunView) -> tuple[list[Markup], str | None]:
    """A drawing for each loss term, the learning rates and the metrics, over the same steps; or why there is none."""
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
    """run.json, without the configuration, in words; what an older run lacks is left out."""
    data = record.data
    sets = [
        f"{name}: {split.pictures:,} pictures of {split.identities:,} identities"
        for name, split in (("train", data.train), ("test", data.test))
        if split
    ]
    versions = {"python": record.python, **record.versions}
    facts = {
        "command": shlex.join(record.command),
        "earlier commands": "\n".join(map(shlex.join, record.earlier_commands)),
        "seed": record.seed,
        "device": record.device,
        "processor": ", ".join(filter(None, (record.processor, f"{record.cores} cores" if record.cores else None))),
        "platform": record.platform,
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items() if number),
        "git commit": record.git_commit,
        "data": "; ".join([data.root, *sets]),
        "data checksum": data.checksum,
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _sections(config: Config) -> dict[str, str]:
    """The resolved configuration as YAML by section, without the loss terms that are absent."""
    tree = dump_config(config)
    for stage, described in zip(config.stages, tree["stages"], strict=True):
        described["losses"] = {name: described["losses"][name] for name in stage.losses.terms()}
    single = {key: value for key, value in tree.items() if not isinstance(value, dict | list)}
    grouped = {key: {key: value} for key, value in tree.items() if key not in single}
    return {
        name: yaml.dump(part, Dumper=_Dumper, sort_keys=False)
        for name, part in {"single values": single, **grouped}.items()
    }


class _Dumper(yaml.SafeDumper):
    """Writes lists of plain values in one line."""


_Dumper.add_representer(
    list,
    lambda dumper, value: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", value, flow_style=not any(isinstance(item, dict) for item in value)
    ),
)
