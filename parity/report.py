"""Run the parity ladder: each case's worst error, where it is, and whether it is within its tolerance."""

import html
import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ms_vireid import runtime
from ms_vireid.command import Parser, add_device, run
from ms_vireid.errors import InputError
from ms_vireid.files.writing import check_output, write_text

WIDTH, HEIGHT = 260, 110  # of one plot, in pixels


def main() -> None:
    parser = Parser(__doc__)
    add_device(parser)
    parser.add_argument("--rung", type=int, nargs="+", choices=range(1, 8), help="only these (default: all seven)")
    parser.add_argument("--match", metavar="TEXT", help="only cases whose name holds this")
    parser.add_argument("--small", action="store_true", help="leave out real widths and 20-step trainings")
    parser.add_argument("--html", type=Path, metavar="F", help="also write a page that needs no other file")
    arguments = parser.parse_args()
    if arguments.html:
        check_output(arguments.html, "--html")

    device = runtime.set_up(arguments.device, "agw")  # the instruction set that convolutions need
    runtime.use_full_float32()
    from parity.cases import LADDER

    chosen = [
        case
        for case in LADDER
        if (not arguments.rung or case.rung in arguments.rung)
        and (not arguments.match or arguments.match in case.subject)
        and (case.small or not arguments.small)
    ]
    if not chosen:
        raise InputError(f"no case matches --match {arguments.match}; leave it out to see them all")
    print(f"device: {device}")
    begun = time.perf_counter()
    outcomes = list(_run_all(chosen))
    seconds = time.perf_counter() - begun
    print(f"\n{worst_by_rung(outcomes)}\n\n{summary(outcomes, seconds)}")
    if arguments.html:
        write_text(arguments.html, page(outcomes, device, summary(outcomes, seconds)))
        print(f"page: {arguments.html}")
    if not all(outcome.passed for outcome in outcomes):
        sys.exit(1)


def _run_all(cases: Sequence) -> Iterable:
    from parity.cases import run as run_case

    width = max(len(str(case)) for case in cases)
    print(f"{'case':{width}}  {'error':>7}  {'limit':>7}  verdict  {'time':>7}  where")
    for case in cases:
        begun = time.perf_counter()
        outcome = run_case(case)
        worst = outcome.decisive
        print(
            f"{case!s:{width}}  {worst.error:7.1e}  {worst.tolerance:7.0e}  {'ok' if outcome.passed else 'OVER':7}  "
            f"{time.perf_counter() - begun:5.1f} s  {worst.tensor}, {worst.detail}",
            flush=True,
        )
        if case.rung == 5 and not case.small:
            print(_side_by_side(outcome), flush=True)
        yield outcome


def _side_by_side(outcome) -> str:
    """A training's loss in both frameworks at some of its steps, and the worst of its loss terms and weights."""
    from parity.trajectory import trajectories

    recipe, _, run_name = outcome.case.subject.partition(", ")
    losses = {name: trajectories(recipe)[name].terms["loss"] for name in (run_name, "PyTorch")}
    steps = sorted({0, *range(4, len(losses["PyTorch"]), 5), len(losses["PyTorch"]) - 1})
    width = max(*map(len, losses), len("loss at step"))
    lines = [f"    {'loss at step':{width}}" + "".join(f"{step + 1:12}" for step in steps)]
    lines += [f"    {name:{width}}" + "".join(f"{loss[step]:12.6f}" for step in steps) for name, loss in losses.items()]
    for kind in ("loss term", "weight"):
        errors = [c.error for c in outcome.comparisons if c.tensor.startswith(f"{kind} ")]
        lines.append(f"    worst {kind}: {max(errors):.1e}")
    return "\n".join(lines)


def worst_by_rung(outcomes: Sequence) -> str:
    """For each rung, and each kind of tolerance in it, the comparison that came nearest to its limit."""
    from parity.cases import RUNGS, closeness

    lines = []
    for rung, name in RUNGS.items():
        of_rung = [(outcome.case, c) for outcome in outcomes if outcome.case.rung == rung for c in outcome.comparisons]
        exact = [c for _, c in of_rung if c.tolerance == 0.0]
        if exact:
            wrong = sum(not c.passed for c in exact)
            lines.append(f"{rung} {name:14}  {len(exact) - wrong} of {len(exact)} exact comparisons hold")
        for tolerance in sorted({c.tolerance for _, c in of_rung} - {0.0}):
            case, worst = max(
                ((case, c) for case, c in of_rung if c.tolerance == tolerance), key=lambda pair: closeness(pair[1])
            )
            lines.append(
                f"{rung} {name:14}  worst {worst.error:7.1e} of {tolerance:5.0e}  {case.subject}: {worst.tensor}"
            )
    return "\n".join(lines)


def summary(outcomes: Sequence, seconds: float) -> str:
    over = [outcome for outcome in outcomes if not outcome.passed]
    compared = sum(len(outcome.comparisons) for outcome in outcomes)
    names = f": {', '.join(str(outcome.case) for outcome in over)}" if over else ""
    return f"{len(outcomes)} cases, {compared} comparisons, {len(over)} over tolerance{names}, in {seconds:.0f} s"


def page(outcomes: Sequence, device: str, closing: str) -> str:
    """A self-contained HTML page: the heat map of subjects and rungs, the training curves, and every case."""
    parts = [heat_map(outcomes), curves(outcomes), table(outcomes)]
    return _PAGE.format(device=html.escape(device), closing=html.escape(closing), body="\n".join(parts))


def heat_map(outcomes: Sequence) -> str:
    """Rows are what is compared, columns the rungs; a cell is the worst of its cases."""
    from parity.cases import RUNGS, closeness

    subjects = list(dict.fromkeys(_row(outcome) for outcome in outcomes))
    cells: dict[tuple[str, int], list] = {}
    for outcome in outcomes:
        cells.setdefault((_row(outcome), outcome.case.rung), []).append(outcome)
    head = "".join(f"<th>{rung}<br>{name}</th>" for rung, name in RUNGS.items())
    rows = []
    for subject in subjects:
        columns = []
        for rung in RUNGS:
            here = cells.get((subject, rung))
            if not here:
                columns.append("<td></td>")
                continue
            worst = max((outcome.decisive for outcome in here), key=lambda c: (not c.passed, closeness(c)))
            columns.append(
                f'<td style="{_colour(worst)}" title="{html.escape(str(worst), quote=True)}">'
                f"{'OVER ' if not worst.passed else ''}{_short(worst.error)}</td>"
            )
        rows.append(f"<tr><th>{html.escape(subject)}</th>{''.join(columns)}</tr>")
    legend = "".join(
        f'<span style="{_shade(level)}">{text}</span>'
        for level, text in ((0.0, "exact"), (1e-3, "1/1000 of the limit"), (1e-1, "1/10"), (1.0, "at the limit"))
    )
    return (
        f"<h2>Cases by rung</h2><p>The error nearest to its limit, relative to its tensor's largest entry. "
        f"<span class=legend>{legend}<span style='{_OVER}'>over</span></span></p>"
        f"<div class=scroll><table class=heat><tr><th></th>{head}</tr>{''.join(rows)}</table></div>"
    )


def _row(outcome) -> str:
    return outcome.case.subject.partition(",")[0]


def _short(error: float) -> str:
    return "0" if error == 0.0 else f"{error:.0e}".replace("e-0", "e-").replace("e+0", "e")


_OVER = "background:#b5400a;color:#fff;font-weight:bold"


def _colour(comparison) -> str:
    from parity.cases import closeness

    return _shade(closeness(comparison)) if comparison.passed else _OVER


def _shade(closeness: float) -> str:
    """Light blue where nothing differs, dark blue near the limit: one hue, told apart by lightness."""
    level = 0.0 if closeness <= 1e-4 else min(1.0, 1.0 + math.log10(closeness) / 4)
    lightness = 96 - 56 * level
    return f"background:hsl(212 60% {lightness:.0f}%);color:{'#fff' if lightness < 62 else '#111'}"


def curves(outcomes: Sequence) -> str:
    """The loss terms of every training that was run, both frameworks in one plot."""
    recipes = list(dict.fromkeys(_row(o) for o in outcomes if o.case.rung == 5 and not o.case.small))
    if not recipes:
        return ""
    from parity.trajectory import trajectories

    sections = []
    for recipe in recipes:
        runs = trajectories(recipe)
        terms = runs["PyTorch"].terms
        plots = "".join(_plot(name, {label: run.terms[name] for label, run in runs.items()}) for name in terms)
        sections.append(f"<h3>{html.escape(recipe)}</h3><div class=plots>{plots}</div>")
    key = "".join(
        f'<span><svg width=34 height=10><line x1=0 y1=5 x2=34 y2=5 style="{style}"/></svg> {html.escape(label)}</span>'
        for label, style in _LINES.items()
    )
    return f"<h2>Training</h2><p>Every step from the same weights. <span class=key>{key}</span></p>{''.join(sections)}"


_LINES = {
    "MindSpore": "stroke:#f0a03c;stroke-width:7",
    "PyTorch": "stroke:#1b4f8a;stroke-width:3.5",
    "MindSpore, then PyTorch": "stroke:#fff;stroke-width:1.5;stroke-dasharray:6 6",
    "PyTorch, then MindSpore": "stroke:#111;stroke-width:1.5;stroke-dasharray:1 7",
}


def _plot(title: str, series: dict) -> str:
    values = [value for line in series.values() for value in line]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def points(line) -> str:
        step = WIDTH / (len(line) - 1)
        return " ".join(f"{i * step:.1f},{HEIGHT * (1 - (v - low) / span):.1f}" for i, v in enumerate(line))

    lines = "".join(f'<polyline points="{points(line)}" style="fill:none;{_LINES[n]}"/>' for n, line in series.items())
    steps = len(next(iter(series.values())))
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="-8 -8 {WIDTH + 66} {HEIGHT + 34}" '
        f'role="img" aria-label="{html.escape(title)} by step"><rect width={WIDTH} height={HEIGHT} class=frame />'
        f"{lines}"
        f"<text x={WIDTH + 6} y=10>{high:.3g}</text><text x={WIDTH + 6} y={HEIGHT}>{low:.3g}</text>"
        f"<text x=0 y={HEIGHT + 18}>step 1</text><text x={WIDTH} y={HEIGHT + 18} text-anchor=end>{steps}</text>"
        f"</svg></figure>"
    )


def table(outcomes: Sequence) -> str:
    rows = "".join(
        f"<tr{'' if o.passed else ' class=over'}><td>{o.case.rung}</td><td>{html.escape(o.case.subject)}</td>"
        f"<td>{len(o.comparisons)}</td><td>{o.decisive.error:.1e}</td><td>{o.decisive.tolerance:.0e}</td>"
        f"<td>{'ok' if o.passed else 'OVER'}</td>"
        f"<td>{html.escape(o.decisive.tensor)}, {html.escape(o.decisive.detail)}</td></tr>"
        for o in outcomes
    )
    head = "".join(f"<th>{t}</th>" for t in ("rung", "case", "compared", "error", "limit", "verdict", "where"))
    return f"<h2>Every case</h2><div class=scroll><table class=cases><tr>{head}</tr>{rows}</table></div>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Parity of MindSpore and PyTorch</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 1100px; margin: 0 auto; padding: 1rem; color: #111; }}
h1 {{ font-size: 1.5rem; }} h2 {{ margin-top: 2rem; font-size: 1.2rem; }} h3 {{ font-size: 1rem; }}
.scroll {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-size: 13px; }}
.heat td, .heat th {{ padding: .2rem .45rem; }} .heat td {{ text-align: center; min-width: 4.2em; }}
.heat tr > th:first-child {{ text-align: left; font-weight: normal; white-space: nowrap; }}
.cases td, .cases th {{ padding: .2rem .5rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }}
.over td {{ background: #fbe3d8; }}
.legend span {{ padding: .1rem .5rem; font-size: 12px; white-space: nowrap; }}
.key span {{ margin-right: 1rem; white-space: nowrap; }} .key svg {{ background: #ccc; vertical-align: middle; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: .8rem; }}
figure {{ margin: 0; }} figcaption {{ font-size: 13px; }} svg text {{ font-size: 12px; }}
.frame {{ fill: #f4f4f4; }}
</style></head><body>
<h1>Parity of MindSpore and PyTorch</h1>
<p>{closing}</p><p>Device: {device}</p>
{body}
</body></html>
"""


if __name__ == "__main__":
    run(main)
