"""The ladder's page: a heat map of subjects and rungs, training curves, and every case. It needs no other file."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from parity.cases import COMPUTING, ONCE, RUNGS, Outcome
from parity.compare import Comparison, where

WIDTH, HEIGHT = 260, 110  # of one plot, in pixels
LEGEND = ((0.0, "exact"), (1e-3, "1/1000 of the limit"), (1e-1, "1/10"), (1.0, "at the limit"))
LINES = {
    "MindSpore": "stroke:#f0a03c;stroke-width:7",
    "PyTorch": "stroke:#1b4f8a;stroke-width:3.5",
    "MindSpore, then PyTorch": "stroke:#fff;stroke-width:1.5;stroke-dasharray:6 6",
    "PyTorch, then MindSpore": "stroke:#111;stroke-width:1.5;stroke-dasharray:1 7",
}


def render(outcomes: Sequence[Outcome], programs: Sequence[str], device: str, closing: str) -> str:
    environment = Environment(
        loader=PackageLoader("parity", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rungs = [(rung, name, programs if rung in COMPUTING else (ONCE,)) for rung, name in RUNGS.items()]
    return environment.get_template("page.html").render(
        closing=closing,
        device=device,
        programs=programs,
        outcomes=outcomes,
        once=ONCE,
        rungs=rungs,
        heat=_heat(outcomes, [(rung, program) for rung, _, columns in rungs for program in columns]),
        trainings=_trainings(outcomes, programs),
        legend=LEGEND,
        lines=LINES,
        width=WIDTH,
        height=HEIGHT,
        shade=_shade,
        short=lambda error: "0" if error == 0.0 else f"{error:.0e}".replace("e-0", "e-").replace("e+0", "e"),
        where=where,
    )


def _heat(outcomes: Sequence[Outcome], columns: Sequence[tuple[int, str]]) -> list[tuple[str, list[Comparison | None]]]:
    """Show the worst case of each subject, rung and program; a case that runs once on a rung with programs stands in
    every column."""
    held = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        for rung, program in columns:
            shown = program if program in outcome.results else ONCE
            if rung == outcome.case.rung and shown in outcome.results:
                held[outcome.case.subject.partition(",")[0]][rung, program].append(outcome.decisive(shown))
    worst = {
        subject: {column: max(cells, key=lambda one: (not one.passed, one.closeness)) for column, cells in row.items()}
        for subject, row in held.items()
    }
    return [(subject, [row.get(column) for column in columns]) for subject, row in worst.items()]


def _shade(closeness: float) -> str:
    """Light blue where nothing differs, dark blue near the limit: one hue, told apart by lightness."""
    level = 0.0 if closeness <= 1e-4 else min(1.0, 1.0 + math.log10(closeness) / 4)
    lightness = 96 - 56 * level
    return f"background:hsl(212 60% {lightness:.0f}%);color:{'#fff' if lightness < 62 else '#111'}"


def _trainings(outcomes: Sequence[Outcome], programs: Sequence[str]) -> list[tuple[str, list[list[dict]]]]:
    """Plot the loss terms of every training, both frameworks in one plot; a row of plots for each program."""
    runs = defaultdict(dict)
    for outcome in outcomes:
        if outcome.terms:
            runs[outcome.case.training][outcome.case.subject.partition(", ")[2]] = outcome.terms
    trainings = []
    for recipe, by_run in runs.items():
        expected = next(iter(by_run.values()))["PyTorch"]
        rows = []
        for program in programs:
            terms = {label: by[program] for label, by in by_run.items()} | {"PyTorch": expected}
            rows.append(
                [
                    _plot(f"{program}: {name}", {run: terms[run][name] for run in LINES if run in terms})
                    for name in expected
                ]
            )
        trainings.append((recipe, rows))
    return trainings


def _plot(title: str, series: Mapping[str, np.ndarray]) -> dict:
    low, high = (float(extreme(list(series.values()))) for extreme in (np.min, np.max))
    steps = len(next(iter(series.values())))
    across = np.linspace(0, WIDTH, steps)
    points = {
        label: " ".join(
            f"{x:.1f},{HEIGHT * (1 - (y - low) / ((high - low) or 1.0)):.1f}" for x, y in zip(across, line, strict=True)
        )
        for label, line in series.items()
    }
    return {"title": title, "points": points.items(), "low": f"{low:.3g}", "high": f"{high:.3g}", "steps": steps}
