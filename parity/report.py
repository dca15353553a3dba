"""Run the parity ladder: each case's worst error by each program, where it is, and whether it is within its limit.

A program is how MindSpore computes: by the CPU's kernels, by its operators one by one, or by a compiled graph of them.
PyTorch's side is computed once for all. What no program has a part in (names, pictures, initial values, learning
rates) runs once; losses and other functions have no kernels, so that for them "kernels" is the same as "operators".

With --stand-in, MindSpore's plugins for GPU and Ascend compute the small cases of rungs 2 to 5 without their devices
(parity/stand_in): by the compiled program, or with --program operators operator by operator.
"""

import html
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, add_device, check_least, run
from ms_vireid.devices import runtime
from ms_vireid.files.writing import check_output, write_text
from parity.processes import executor

WIDTH, HEIGHT = 260, 110  # of one plot, in pixels
CELL, WORST = 18, 12  # characters of a program's column, of cases and of rungs


@dataclass(frozen=True)
class Side:
    """A device, and the programs by which it computes. stand_in: it is not there, and a stand-in takes its place."""

    device: str
    programs: tuple[str, ...]
    stand_in: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(map(self.column, self.programs))

    def column(self, program: str) -> str:
        """The name of a program's column: on a stand-in the device's, as its program is the compiled one."""
        if not self.stand_in or program == "":
            return program
        return self.device.lower() if program == "graph" else f"{self.device.lower()} {program}"

    def __str__(self) -> str:
        return f"{self.device} (stand-in)" if self.stand_in else self.device


def main() -> None:
    parser = Parser(__doc__)
    add_device(parser)
    parser.add_argument(
        "--stand-in",
        action="store_true",
        help="compute on the stand-in for --device GPU or Ascend; with --device auto, on both, beside the CPU",
    )
    parser.add_argument(
        "--program",
        nargs="+",
        choices=("kernels", "operators", "graph"),
        help="how MindSpore computes (default: all that the device has, on a stand-in graph; kernels are a CPU's)",
    )
    parser.add_argument("--rung", type=int, nargs="+", choices=range(1, 8), help="only these (default: all seven)")
    parser.add_argument("--match", metavar="TEXT", help="only cases whose name holds this")
    parser.add_argument("--small", action="store_true", help="leave out real widths and 20-step trainings")
    parser.add_argument("--html", type=Path, metavar="F", help="also write a page that needs no other file")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="that share the cases and the cores (default: 2 on two CPU cores or more)",
    )
    arguments = parser.parse_args()
    check_least(arguments, processes=1)
    if arguments.html:
        check_output(arguments.html, "--html")

    described, sides = _sides(arguments)
    from parity.cases import LADDER, Outcome, is_for_stand_ins

    chosen = [
        case
        for case in LADDER
        if (not arguments.rung or case.rung in arguments.rung)
        and (not arguments.match or arguments.match in case.subject)
        and (case.small or not arguments.small)
    ]
    begun = time.perf_counter()
    found: dict = {}  # by the case: results and loss terms of all sides
    for side in sides:
        cases = list(filter(is_for_stand_ins, chosen)) if side.stand_in else chosen
        if not cases:
            continue
        print(f"device: {side if side.stand_in else described}")
        for outcome in _run_all(cases, side, arguments.processes):
            results, terms = found.setdefault(outcome.case, ({}, {}))
            results.update(outcome.results)
            terms.update(outcome.terms)
        print()
    if not found:
        which = f"--match {arguments.match}" if arguments.match else "--rung on a stand-in, which has 2 to 5"
        raise InputError(f"no case matches {which}; leave it out to see them all")
    outcomes = [Outcome(case, *found[case]) for case in chosen if case in found]
    columns = [column for side in sides for column in side.columns]
    closing = summary(outcomes, time.perf_counter() - begun)
    print(f"{worst_by_rung(outcomes, columns)}\n\n{closing}")
    if arguments.html:
        shown = ", ".join(str(side) if side.stand_in else described for side in sides)
        write_text(arguments.html, page(outcomes, columns, shown, closing))
        print(f"page: {arguments.html}")
    if not all(outcome.passed for outcome in outcomes):
        sys.exit(1)


def _sides(arguments) -> tuple[str, list[Side]]:
    """The device of this process, and the sides that compute.

    Raises:
        InputError: a program that no side has, or a stand-in that cannot be built.
    """
    from parity.stand_in import DEVICES, missing

    wanted = arguments.program
    if not arguments.stand_in:
        described = _begin(arguments.device)
        from parity.cases import programs_of_device

        return described, [Side(described.split()[0], _programs(wanted, programs_of_device(), described))]
    devices = list(DEVICES) if arguments.device == "auto" else [arguments.device]
    for device in devices:
        if device not in DEVICES:
            raise InputError(f"--device {device}: stand-ins are for {' and '.join(DEVICES)}; leave --stand-in out")
        if reason := missing(device):
            raise InputError(f"{reason}; it needs Linux on x86-64 with gcc, g++ and binutils")
    described = _begin("CPU")  # of this process, which computes nothing if a stand-in alone is asked for
    from parity.cases import programs_of_device

    sides = [Side("CPU", _programs(wanted, programs_of_device(), "CPU"))] if arguments.device == "auto" else []
    there = [program for program in wanted or ["graph"] if program != "kernels"]
    if not there:
        raise InputError("--program kernels: they are a CPU's; a stand-in has operators and graph")
    return described, [*sides, *(Side(device, tuple(there), stand_in=True) for device in devices)]


def _programs(wanted: Sequence[str] | None, there: Sequence[str], device: str) -> tuple[str, ...]:
    """Those wanted, in the usual order.

    Raises:
        InputError: one that the device does not have.
    """
    for program in wanted or ():
        if program not in there:
            raise InputError(f"--program {program}: {device.split()[0]} has {' and '.join(there)}; kernels are a CPU's")
    return tuple(program for program in there if program in (wanted or there))


def _begin(device: str) -> str:
    """Set a process up for comparisons."""
    found = runtime.set_up(device)
    runtime.cap_convolutions()
    runtime.use_full_float32()
    return found


def _run_all(cases: Sequence, side: Side, processes: int | None) -> Iterable:
    width = max(len(str(case)) for case in cases)
    print(f"{'case':{width}}{''.join(f'{column:>{CELL}}' for column in side.columns)}  verdict  {'time':>7}  where")
    for seconds, outcome in _shared_out(cases, side, processes):
        program, worst = outcome.worst
        print(
            f"{outcome.case!s:{width}}"
            f"{_columns({p: _of_limit(outcome.decisive(p)) for p in outcome.results}, side.columns)}  "
            f"{'ok' if outcome.passed else 'OVER':7}  {seconds:5.1f} s  {_by(program)}{worst.tensor}, {worst.detail}",
            flush=True,
        )
        if outcome.terms:
            print(_side_by_side(outcome), flush=True)
        yield outcome


def _shared_out(cases: Sequence, side: Side, processes: int | None) -> Iterable:
    """Seconds and outcome of each case, in order. A recipe's trainings, which have much in common, are one task."""
    from parity.cases import LADDER, Outcome
    from parity.stand_in import build

    tasks = [list(together) for _, together in groupby(cases, lambda case: case.training or case)]
    shared = side.device == "CPU" or side.stand_in
    processes = min(processes or (min(2, len(runtime.cores())) if shared else 1), len(tasks))
    alone = processes == 1 and not side.stand_in
    with nullcontext() if alone else executor(processes, _begin, side.device) as others:
        numbers = [[LADDER.index(case) for case in task] for task in tasks]
        # What begins with the first tasks is on the stand-in.
        with runtime.environment(build(side.device).environment()) if side.stand_in else nullcontext():
            done = (map if alone else others.map)(partial(_run_task, side), numbers)
        for task in tasks:
            try:
                made = next(done)
            except BrokenProcessPool:
                raise InputError(f"{side}: a process ended on the way; what it said last stands above") from None
            for case, (seconds, results, terms) in zip(task, made, strict=True):
                yield seconds, Outcome(case, results, terms)


def _run_task(side: Side, numbers: Sequence[int]) -> list[tuple]:
    """Seconds, results and loss terms of cases, by their places on the ladder: a case itself is not sent."""
    from parity.cases import LADDER
    from parity.cases import run as run_case

    made = []
    for number in numbers:
        begun = time.perf_counter()
        outcome = run_case(LADDER[number], side.programs, side.stand_in)
        results, terms = (
            {side.column(by) if by != "PyTorch" else by: value for by, value in found.items()}
            for found in (outcome.results, outcome.terms)
        )
        made.append((time.perf_counter() - begun, results, terms))
    return made


def _columns(values: dict[str, str], programs: Sequence[str], width: int = CELL) -> str:
    """One for each program; one for all of them for what runs once."""
    if "" in values:
        return f"{values[''] + ', once':>{max(width * len(programs), CELL)}}"
    return "".join(f"{values.get(program, ''):>{width}}" for program in programs)


def _of_limit(comparison) -> str:
    return f"{comparison.error:.1e} of {comparison.tolerance:.0e}{'' if comparison.passed else '!'}"


def _by(program: str) -> str:
    return f"{program}: " if program else ""


def _side_by_side(outcome) -> str:
    """A training's loss in PyTorch and by each program at some of its steps, and the worst of its loss terms and
    weights."""
    run_name = outcome.case.subject.partition(", ")[2]
    losses = {by if by == "PyTorch" else f"{run_name}, {by}": terms["loss"] for by, terms in outcome.terms.items()}
    steps = sorted({0, *range(4, len(losses["PyTorch"]), 5), len(losses["PyTorch"]) - 1})
    width = max(*map(len, losses), len("loss at step"))
    lines = [f"    {'loss at step':{width}}" + "".join(f"{step + 1:12}" for step in steps)]
    lines += [f"    {name:{width}}" + "".join(f"{loss[step]:12.6f}" for step in steps) for name, loss in losses.items()]
    for kind in ("loss term", "weight"):
        errors = {
            program: max(c.error for c in made if c.tensor.startswith(f"{kind} "))
            for program, made in outcome.results.items()
        }
        lines.append(f"    worst {kind}: {', '.join(f'{program} {error:.1e}' for program, error in errors.items())}")
    return "\n".join(lines)


def worst_by_rung(outcomes: Sequence, programs: Sequence[str]) -> str:
    """For each rung, and each kind of limit in it, the comparison of each program that came nearest to it."""
    from parity.cases import ONCE, RUNGS

    found = defaultdict(lambda: defaultdict(list))  # by the rung, whether it runs once, the limit, and the program
    for outcome in outcomes:
        for program, comparisons in outcome.results.items():
            for comparison in comparisons:
                group = found[outcome.case.rung, program == ONCE, comparison.tolerance]
                group[program].append((outcome.case, comparison))
    width = max(WORST, *(len(program) + 2 for program in programs))
    lines = [f"{'rung':18}{'limit':>7}{''.join(f'{program:>{width}}' for program in programs)}  the nearest of all"]
    for (rung, _, tolerance), by_program in sorted(found.items()):
        if tolerance == 0.0:
            cells = {p: f"{sum(c.passed for _, c in made)} of {len(made)}" for p, made in by_program.items()}
            limit, where = "exact", ""
        else:
            worst = {p: max(made, key=lambda pair: pair[1].closeness) for p, made in by_program.items()}
            cells = {p: f"{c.error:.1e}" for p, (_, c) in worst.items()}
            program, (case, comparison) = max(worst.items(), key=lambda item: item[1][1].closeness)
            limit, where = f"{tolerance:.0e}", f"  {_by(program)}{case.subject}: {comparison.tensor}"
        lines.append(f"{f'{rung} {RUNGS[rung]}':18}{limit:>7}{_columns(cells, programs, width)}{where}".rstrip())
    return "\n".join(lines)


def summary(outcomes: Sequence, seconds: float) -> str:
    over = [outcome for outcome in outcomes if not outcome.passed]
    compared = sum(len(outcome.comparisons) for outcome in outcomes)
    named = [f"{outcome.case}{f' ({by})' if (by := ', '.join(filter(None, outcome.over))) else ''}" for outcome in over]
    names = f": {'; '.join(named)}" if over else ""
    return f"{len(outcomes)} cases, {compared} comparisons, {len(over)} over tolerance{names}, in {seconds:.0f} s"


def page(outcomes: Sequence, programs: Sequence[str], device: str, closing: str) -> str:
    """A self-contained HTML page: the heat map of subjects and rungs, the training curves, and every case."""
    parts = [heat_map(outcomes, programs), curves(outcomes, programs), table(outcomes, programs)]
    return _PAGE.format(device=html.escape(device), closing=html.escape(closing), body="\n".join(parts))


def heat_map(outcomes: Sequence, programs: Sequence[str]) -> str:
    """Rows are what is compared, columns the rungs, one for each program; a cell is the worst of its cases."""
    from parity.cases import COMPUTING, ONCE, RUNGS

    subjects = list(dict.fromkeys(_row(outcome) for outcome in outcomes))
    cells: dict[tuple[str, int, str], list] = {}
    for outcome in outcomes:
        for program in outcome.results:
            # What runs once, on a rung that has programs, stands in the column of each.
            shown = programs if program == ONCE and outcome.case.rung in COMPUTING else (program,)
            for column in shown:
                cells.setdefault((_row(outcome), outcome.case.rung, column), []).append(outcome.decisive(program))
    columns = [(rung, program) for rung in RUNGS for program in (programs if rung in COMPUTING else (ONCE,))]
    head = "".join(
        f"<th colspan={len(programs) if rung in COMPUTING else 1}>{rung}<br>{name}</th>" for rung, name in RUNGS.items()
    )
    second = "".join(f"<th>{program}</th>" for _, program in columns)
    rows = []
    for subject in subjects:
        shown = []
        for column in columns:
            here = cells.get((subject, *column))
            if not here:
                shown.append("<td></td>")
                continue
            worst = max(here, key=lambda c: (not c.passed, c.closeness))
            shown.append(
                f'<td style="{_colour(worst)}" title="{html.escape(str(worst), quote=True)}">'
                f"{'OVER ' if not worst.passed else ''}{_short(worst.error)}</td>"
            )
        rows.append(f"<tr><th>{html.escape(subject)}</th>{''.join(shown)}</tr>")
    legend = "".join(
        f'<span style="{_shade(level)}">{text}</span>'
        for level, text in ((0.0, "exact"), (1e-3, "1/1000 of the limit"), (1e-1, "1/10"), (1.0, "at the limit"))
    )
    return (
        f"<h2>Cases by rung and program</h2><p>The error nearest to its limit, relative to its tensor's largest entry. "
        f"<span class=legend>{legend}<span style='{_OVER}'>over</span></span></p>"
        f"<div class=scroll><table class=heat><tr><th></th>{head}</tr><tr><th></th>{second}</tr>{''.join(rows)}"
        "</table></div>"
    )


def _row(outcome) -> str:
    return outcome.case.subject.partition(",")[0]


def _short(error: float) -> str:
    return "0" if error == 0.0 else f"{error:.0e}".replace("e-0", "e-").replace("e+0", "e")


_OVER = "background:#b5400a;color:#fff;font-weight:bold"


def _colour(comparison) -> str:
    return _shade(comparison.closeness) if comparison.passed else _OVER


def _shade(closeness: float) -> str:
    """Light blue where nothing differs, dark blue near the limit: one hue, told apart by lightness."""
    level = 0.0 if closeness <= 1e-4 else min(1.0, 1.0 + math.log10(closeness) / 4)
    lightness = 96 - 56 * level
    return f"background:hsl(212 60% {lightness:.0f}%);color:{'#fff' if lightness < 62 else '#111'}"


def curves(outcomes: Sequence, programs: Sequence[str]) -> str:
    """The loss terms of every training that was run, both frameworks in one plot; a row of plots for each program."""
    recipes = list(dict.fromkeys(outcome.case.training for outcome in outcomes if outcome.terms))
    if not recipes:
        return ""
    sections = []
    for recipe in recipes:
        sections.append(f"<h3>{html.escape(recipe)}</h3>")
        runs = {o.case.subject.partition(", ")[2]: o.terms for o in outcomes if o.terms and o.case.training == recipe}
        for program in programs:
            lines = {label: by[program] for label, by in runs.items()} | {
                "PyTorch": next(iter(runs.values()))["PyTorch"]
            }
            plots = "".join(
                _plot(f"{program}: {name}", {label: lines[label][name] for label in _LINES if label in lines})
                for name in lines["PyTorch"]
            )
            sections.append(f"<div class=plots>{plots}</div>")
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


def table(outcomes: Sequence, programs: Sequence[str]) -> str:
    """Every case: the error of each program with its limit, and where the worst is."""
    rows = []
    for outcome in outcomes:
        program, worst = outcome.worst
        errors = {p: _of_limit(outcome.decisive(p)) for p in outcome.results}
        if "" in errors:
            cells = f"<td colspan={len(programs)}>{errors['']}, once</td>"
        else:
            cells = "".join(f"<td>{errors.get(p, '')}</td>" for p in programs)
        rows.append(
            f"<tr{'' if outcome.passed else ' class=over'}><td>{html.escape(str(outcome.case))}</td>{cells}"
            f"<td>{'ok' if outcome.passed else 'OVER'}</td>"
            f"<td>{html.escape(f'{_by(program)}{worst.tensor}, {worst.detail}')}</td></tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in ("case", *programs, "verdict", "where"))
    return f"<h2>Every case</h2><div class=scroll><table class=cases><tr>{head}</tr>{''.join(rows)}</table></div>"


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
