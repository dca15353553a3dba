"""A run's loss terms, learning rates and metrics over its steps, from metrics.jsonl."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ms_vireid.command.errors import InputError
from ms_vireid.engine.run_folder import RunFolder, parse_metrics
from ms_vireid.evaluation.table import COLUMNS
from ms_vireid.visualization.figure import DASHES, SERIES, SERIES_MARKERS, new_figure, styled

NOT_TERMS = ("epoch", "step", "images_per_second", "evaluation")
METRICS = ("rank1", "map", "minp")  # that are drawn
RATES_TITLE, METRICS_TITLE = "learning rate", "metrics on the test set"
PANELS_IN_ROW = 3
MARKERS_ON_LINE = 6  # about, where several runs are told apart by them


@dataclass(frozen=True)
class Curves:
    """Points (step, value) by name: loss terms with their total first, learning rates by group, metrics in 0..1."""

    terms: dict[str, list[tuple[int, float]]]
    rates: dict[str, list[tuple[int, float]]]
    metrics: dict[str, list[tuple[int, float]]]


def read_curves(run: Path) -> Curves:
    """Of a run folder, or of a metrics.jsonl file.

    Raises:
        InputError: no such file, a line that is not of such a file, or none at all.
    """
    path = RunFolder(run).metrics if run.is_dir() else run
    if not path.is_file():
        raise InputError(f"{path}: cannot be read (no such file); give a run folder of train.py")
    lines = path.read_bytes().splitlines()
    curves = Curves({}, {}, {})
    for number, line in enumerate(lines, 1):
        row = parse_metrics(line)
        if row is None:
            if number == len(lines):  # cut off by a run that was killed, or is writing
                break
            raise InputError(f"{path}:{number}: is not a line of metrics; give a run folder of train.py")
        step, evaluation = row["step"], row.get("evaluation")
        for name in METRICS:
            if isinstance(evaluation, dict) and _is_number(evaluation.get(name)):
                curves.metrics.setdefault(name, []).append((step, evaluation[name]))
        for name, value in row.items():
            if name not in NOT_TERMS and _is_number(value):
                group = curves.rates if name.startswith("lr_") else curves.terms
                group.setdefault(name.removeprefix("lr_"), []).append((step, value))
    if not curves.terms:
        raise InputError(f"{path}: holds no loss; give a run that has logged some steps")
    return curves


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@styled
def draw_curves(runs: Sequence[Curves], labels: Sequence[str]) -> Figure:
    """A panel for each loss term, one for the learning rates and one for the metrics, as far as logged. Colour and
    marker show the run, dashes the group or the metric."""
    terms = list(dict.fromkeys(name for run in runs for name in run.terms))
    titles = list(terms)
    titles += [RATES_TITLE] if any(run.rates for run in runs) else []
    titles += [METRICS_TITLE] if any(run.metrics for run in runs) else []
    rows = math.ceil(len(titles) / PANELS_IN_ROW)
    columns = min(PANELS_IN_ROW, len(titles))
    figure = new_figure(2.4 * columns + 0.2, 1.75 * rows + 0.3)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).ravel())
    for axes in panels[len(titles) :]:
        axes.set_axis_off()
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title, loc="left")
        axes.grid(axis="y", color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
    for number in range(len(titles)):
        if number + columns >= len(titles):  # nothing below it
            panels[number].set_xlabel("step")
            panels[number].tick_params(labelbottom=True)
    by_title = dict(zip(titles, panels, strict=False))
    rates, metrics = by_title.get(RATES_TITLE), by_title.get(METRICS_TITLE)
    for number, (run, label) in enumerate(zip(runs, labels, strict=True)):
        style = {"color": SERIES[number % len(SERIES)]}
        if len(runs) > 1:
            style |= {"marker": SERIES_MARKERS[number % len(SERIES_MARKERS)]}
        for axes, term in zip(panels, terms, strict=False):
            if term in run.terms:
                _line(axes, run.terms[term], label=label, **style)
        if run.rates:
            _lines(rates, run.rates, style)
        if run.metrics:
            percent = {name: [(step, 100 * value) for step, value in points] for name, points in run.metrics.items()}
            _lines(metrics, percent, style)
    if rates:
        _name_dashes(rates, dict.fromkeys(name for run in runs for name in run.rates))
        rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    if metrics:
        _name_dashes(metrics, [COLUMNS[name] for name in METRICS])
        metrics.set_ylabel("[%]")
    if len(runs) > 1:
        figure.legend(handles=panels[0].get_lines(), loc="outside lower center", ncols=len(runs))
    return figure


def _lines(axes, curves: dict[str, list[tuple[int, float]]], style: dict) -> None:
    for points, dashes in zip(curves.values(), itertools.cycle(DASHES), strict=False):
        _line(axes, points, linestyle=dashes, **style)


def _line(axes, points: list[tuple[int, float]], **style) -> None:
    if len(points) == 1:
        style.setdefault("marker", "o")  # a line would not show
    axes.plot(*zip(*points, strict=True), markevery=max(1, len(points) // MARKERS_ON_LINE), **style)


def _name_dashes(axes, names: Iterable[str]) -> None:
    handles = [
        Line2D([], [], color="0.3", linestyle=d, label=n) for n, d in zip(names, itertools.cycle(DASHES), strict=False)
    ]
    axes.legend(handles=handles, handlelength=2.4)
