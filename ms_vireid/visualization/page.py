"""One self-contained HTML page of a run: what came of it, what the model makes of its test set, and what ran."""

import shlex
from typing import TYPE_CHECKING

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config, dump_config
from ms_vireid.data.records import ImageSet
from ms_vireid.data.transforms import load_image
from ms_vireid.engine.run_folder import RunRecord
from ms_vireid.visualization.curves import METRICS_TITLE, RATES_TITLE, Curves, draw_curves, read_curves
from ms_vireid.visualization.inline import drawing, photograph
from ms_vireid.visualization.ranked import SHOWN, Ranked
from ms_vireid.visualization.run_view import Run, result_notes, result_tables
from ms_vireid.visualization.similarity import Similarities, draw_similarity, overlap

if TYPE_CHECKING:  # findings.py imports mindspore, which a page without pictures does not need
    from ms_vireid.visualization.findings import Explained, Findings


def render(run: Run, findings: "Findings | None", notes: list[str]) -> str:
    """The page; it names no other file and no address.

    findings: None where there is no checkpoint or no test set. notes: why, and what else is to be known of them.

    Raises:
        InputError: a file of the run folder is not what train.py writes, or a picture cannot be decoded.
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
        test=_test_set(run, findings) if findings else None,
        facts=_facts(run.record),
        sections=_sections(run.config),
    )


def _curves(run: Run) -> tuple[list[Markup], str | None]:
    """A drawing for each loss term, the learning rates and the metrics, over the same steps; or why there is none."""
    if not run.folder.metrics.exists():
        return [], "nothing has been logged yet"
    try:
        curves = read_curves(run.folder.path)
    except InputError as error:
        return [], str(error)
    parts = {name: Curves({name: points}, {}, {}) for name, points in curves.terms.items()}
    parts |= {RATES_TITLE: Curves({}, curves.rates, {})} if curves.rates else {}
    parts |= {METRICS_TITLE: Curves({}, {}, curves.metrics)} if curves.metrics else {}
    last = max(points[-1][0] for points in (*curves.terms.values(), *curves.metrics.values()))
    panels = []
    for number, (title, part) in enumerate(parts.items()):
        figure = draw_curves([part], [run.name])
        figure.axes[0].set_xlim(0, last)
        ends = ", ".join(
            f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}"
            for name, points in {**part.terms, **part.rates, **part.metrics}.items()
        )
        panels.append(drawing(figure, f"curve{number}", f"{title} over the steps: {ends}"))
    return panels, None


def _test_set(run: Run, findings: "Findings") -> dict:
    """What the page shows of the test set."""
    test, size = findings.test, run.config.data.image_size
    shown = {"best": findings.best, "worst": findings.worst}
    precisions = [ranked.average_precision for ranked in findings.ranked]
    return {
        "similarity": _similarity(findings.similarities, run.name),
        "queries": len(precisions),
        "mean_precision": f"{sum(precisions) / len(precisions):.2%}",
        "chosen": {which: [_ranking(test, ranked, size) for ranked in some] for which, some in shown.items()},
        "explained": [_explained(test, held, size) for held in findings.explained],
    }


def _similarity(one: Similarities, name: str) -> dict:
    shared = f"{overlap(one.positive, one.negative):.1%}"
    counts = f"{len(one.positive):,} pairs of the same identity and {len(one.negative):,} of different ones"
    means = f"means {one.positive.mean():.2f} and {one.negative.mean():.2f}"
    description = f"Distributions of the cosine similarity of {counts}: {means}, overlap {shared}"
    return {"drawing": drawing(draw_similarity([one], [name]), "similarity", description), "text": description}


def _ranking(test: ImageSet, ranked: Ranked, size: tuple[int, int]) -> dict:
    """A query, its first ten with right and wrong, and where the first right one is."""
    first = int(ranked.matches.argmax()) + 1
    found = f"first right picture at rank {first} of {len(ranked.gallery)}"
    pictures = [
        _picture(test, index, size) | {"right": bool(right), "similarity": f"{similarity:.2f}"}
        for index, right, similarity in zip(ranked.gallery[:SHOWN], ranked.matches, ranked.similarity, strict=False)
    ]
    return {
        "title": f"average precision {ranked.average_precision:.1%}, {found}",
        "query": _picture(test, ranked.query, size),
        "pictures": pictures,
    }


def _explained(test: ImageSet, held: "Explained", size: tuple[int, int]) -> dict:
    ranked = held.ranked
    right = "the same identity" if ranked.matches[0] else "another identity"
    return {
        "title": f"Query of identity {test.identities[ranked.query]} and its nearest picture, of {right} "
        f"(similarity {ranked.similarity[0]:.2f})",
        "query": _picture(test, ranked.query, size) | {"map": photograph(held.query_map)},
        "nearest": _picture(test, ranked.gallery[0], size) | {"map": photograph(held.nearest_map)},
    }


def _picture(test: ImageSet, index: int, size: tuple[int, int]) -> dict:
    infrared = bool(test.infrared[index])
    return {
        "source": photograph(load_image(test.paths[index], size)),
        "identity": int(test.identities[index]),
        "camera": int(test.cameras[index]),
        "modality": "infrared" if infrared else "visible",
        "name": test.paths[index].name,
    }


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
