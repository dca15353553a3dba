"""Curves of a run's loss terms, learning rates and metrics over its steps, from metrics.jsonl."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ms_vireid.command.errors import InputError
from ms_vireid.engine.run_folder import METRICS, RunFolder, read_metrics
from ms_vireid.evaluation.metrics_table import COLUMNS
from ms_vireid.files.checks import require_file
from ms_vireid.visualization.figure import (
    DASHES,
    LONGEST_LABEL,
    PANELS_IN_ROW,
    SERIES,
    SERIES_MARKERS,
    add_legend,
    new_figure,
    shortened,
    styled,
)

NOT_TERMS = ("epoch", "step", "images_per_second", "evaluation")
DRAWN = ("rank1", "map", "minp")  # metrics
LAST = RATES, TESTED = "learning rate", "metrics on the test set"  # panels of several curves
MARKERS_ON_LINE = 6  # about, if there are several runs

Panels = dict[str, dict[str, list[tuple[int, float]]]]  # title -> name of a curve -> its points (step, value)


def read_curves(run: Path) -> Panels:
    """Read a run folder, or a metrics.jsonl file: a panel for each loss term, their total first, one for the groups'
    learning rates, and one for the metrics in percent.

    Raises:
        InputError: the file is missing, has a line of another kind, or no loss.
    """
    path = RunFolder(run).metrics if run.is_dir() else run
    require_file(path, METRICS)
    panels: Panels = {}
    for row in read_metrics(path):
        for title, name, value in _values(row):
            points = panels.setdefault(title, {}).setdefault(name, [])
            points.append((row["step"], 100 * value if title == TESTED else value))
    if not panels.keys() - set(LAST):
        raise InputError(f"{path}: holds no loss; give a run that has logged some steps")
    return {title: panels[title] for title in _in_order(panels)}


def _values(row: dict) -> Iterator[tuple[str, str, float]]:
    """Yield the values of a line of metrics.jsonl: panel title, curve name and value."""
    for name, value in row.items():
        if name == "evaluation":
            yield from ((TESTED, COLUMNS[metric], value[metric]) for metric in DRAWN if metric in value)
        elif name.startswith("lr_"):
            yield RATES, name.removeprefix("lr_"), value
        elif name not in NOT_TERMS:
            yield name, name, value


def _in_order(titles: Iterable[str]) -> list[str]:
    return sorted(titles, key=lambda title: LAST.index(title) if title in LAST else -1)


@styled
def draw_curves(runs: Sequence[Panels], labels: Sequence[str]) -> Figure:
    """Draw all panels. Colour and marker tell the run, dashes the parameter group or the metric."""
    titles = _in_order(dict.fromkeys(title for run in runs for title in run))
    rows, columns = math.ceil(len(titles) / PANELS_IN_ROW), min(PANELS_IN_ROW, len(titles))
    figure = new_figure(2.4 * columns + 0.2, 1.75 * rows + 0.3)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    styles = [{"color": colour} for colour, _ in zip(cycle(SERIES), runs, strict=False)]
    if len(runs) > 1:
        styles = [style | {"marker": m} for style, m in zip(styles, cycle(SERIES_MARKERS), strict=False)]
        handles = [Line2D([], [], label=label, **style) for label, style in zip(labels, styles, strict=True)]
        add_legend(figure, handles, len(runs))
    for number, (axes, title) in enumerate(zip(panels, titles, strict=False)):
        _draw_panel(axes, title, [run.get(title, {}) for run in runs], styles)
        if number + columns >= len(titles):  # the lowest of its column
            axes.set_xlabel("step")
            axes.tick_params(labelbottom=True)
    for axes in panels[len(titles) :]:
        axes.set_axis_off()
    return figure


def _draw_panel(axes, title: str, runs: Sequence[dict], styles: Sequence[dict]) -> None:
    axes.set_title(shortened(title, LONGEST_LABEL), loc="left")
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    dashes = dict(zip(dict.fromkeys(name for curves in runs for name in curves), cycle(DASHES), strict=False))
    for curves, style in zip(runs, styles, strict=True):
        for name, points in curves.items():
            drawn = {"marker": "o"} | style if len(points) == 1 else style  # a line would not show
            every = max(1, len(points) // MARKERS_ON_LINE)
            axes.plot(*zip(*points, strict=True), linestyle=dashes[name], markevery=every, **drawn)
    if title in LAST:
        named = [
            Line2D([], [], color="0.3", linestyle=line, label=shortened(name, LONGEST_LABEL))
            for name, line in dashes.items()
        ]
        axes.legend(handles=named, handlelength=2.4)
    if title == RATES:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    if title == TESTED:
        axes.set_ylabel("[%]")
