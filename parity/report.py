"""Run the parity ladder: each case's worst error by each program, where it is, and whether it is within its limit.

A program is how MindSpore computes: by the CPU's kernels, by its operators one by one, or by a compiled graph of them.
PyTorch's side is computed once for all. What no program has a part in (names, pictures, initial values, learning
rates) runs once; losses and other functions have no kernels, so that for them "kernels" is the same as "operators".

With --stand-in, MindSpore's plugins for GPU and Ascend compute the small cases of rungs 2 to 5 without their devices
(parity/stand_in): by the compiled program, or with --program operators operator by operator.

With --long, PMT, MUN and AGW train for 450 and 200 steps instead, in both frameworks from one start and with dropout
on: how far their losses part, beside how far PyTorch's part from its own where the start is rounded once more.
"""

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
from ms_vireid.command.names import PROGRAMS
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, require_extra, run
from ms_vireid.devices import memory, runtime
from ms_vireid.files.writing import check_output, write_text
from parity.processes import executor

CELL, WORST = 18, 12  # characters of a program's column, of cases and of rungs


@dataclass(frozen=True)
class Side:
    """A device, and the programs by which it computes. stand_in: a stand-in takes its place."""

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
        choices=PROGRAMS,
        help="how MindSpore computes (default: all that the device has, on a stand-in graph; kernels are a CPU's)",
    )
    parser.add_argument("--rung", type=int, nargs="+", choices=range(1, 8), help="only these (default: all seven)")
    parser.add_argument("--match", metavar="TEXT", help="only cases whose name holds this")
    parser.add_argument("--small", action="store_true", help="leave out real widths and 20-step trainings")
    parser.add_argument(
        "--long", action="store_true", help="instead of the ladder, whole trainings of up to 450 steps: minutes"
    )
    parser.add_argument("--html", type=Path, metavar="F", help="also write a page that needs no other file")
    parser.add_number(
        "parity --processes", help="that share the cases and the cores (default: 2 on two CPU cores or more)"
    )
    arguments = parser.parse_args()
    require_extra("parity/report.py", "parity", "torch", "torchvision", "timm")
    if arguments.html:
        check_output(arguments.html, "--html")
        require_extra("--html", "parity", "jinja2")
    if arguments.long:
        _train_long(arguments)
        return

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
        cases = [case for case in chosen if case.is_for(side.device) and (not side.stand_in or is_for_stand_ins(case))]
        if not cases:
            continue
        say(f"device: {side if side.stand_in else described}")
        for outcome in _run_all(cases, side, arguments.processes):
            results, terms = found.setdefault(outcome.case, ({}, {}))
            results.update(outcome.results)
            terms.update(outcome.terms)
        say("")
    if not found:
        which = f"--match {arguments.match}" if arguments.match else "--rung on a stand-in, which has 2 to 5"
        raise InputError(f"no case matches {which}; leave it out to see them all")
    outcomes = [Outcome(case, *found[case]) for case in chosen if case in found]
    columns = [column for side in sides for column in side.columns]
    closing = summary(outcomes, time.perf_counter() - begun)
    say(*worst_by_rung(outcomes, columns).split("\n"), "", *closing.split("\n"))
    if arguments.html:
        shown = ", ".join(str(side) if side.stand_in else described for side in sides)
        from parity.page import render

        write_text(arguments.html, render(outcomes, columns, shown, closing))
        say(f"page: {arguments.html}")
    if not all(outcome.passed for outcome in outcomes):
        sys.exit(1)


def _train_long(arguments) -> None:
    """Print how far the losses of each training part by each program, by default the one that a training takes."""
    for option in ("stand_in", "rung", "small", "html", "processes"):
        if getattr(arguments, option):
            name = f"--{option.replace('_', '-')}"
            raise InputError(f"{name} is for the ladder, and --long trains instead; leave one of them out")
    described = _begin(arguments.device)
    from ms_vireid.programs.program import choose
    from parity import long
    from parity.cases import programs_of_device

    programs = _programs(arguments.program or [str(choose("auto"))], programs_of_device(), described)
    names = [name for name in long.TRAININGS if not arguments.match or arguments.match in name]
    if not names:
        raise InputError(f"--match {arguments.match}: --long has {', '.join(long.TRAININGS)}; leave it out to see all")
    say(f"device: {described}", *long.HEAD.split("\n"))
    passed = True
    for name in names:
        for program in programs:
            parting = long.part(name, program)
            passed &= parting.passed
            say(*long.row(name, program, parting).split("\n"))
    if not passed:
        sys.exit(1)


def _sides(arguments) -> tuple[str, list[Side]]:
    """The device of this process, and the sides that compute.

    Raises:
        InputError: a program that no side has, or a stand-in that cannot be built.
    """
    from parity.stand_in import DEVICES, build

    wanted = arguments.program
    if not arguments.stand_in:
        described = _begin(arguments.device)
        from parity.cases import programs_of_device

        return described, [Side(described.split()[0], _programs(wanted, programs_of_device(), described))]
    devices = list(DEVICES) if arguments.device == "auto" else [arguments.device]
    for device in devices:
        if device not in DEVICES:
            raise InputError(f"--device {device}: stand-ins are for {' and '.join(DEVICES)}; leave --stand-in out")
        build(device)
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
    from parity.compare import where

    width = max(len(str(case)) for case in cases)
    say(f"{'case':{width}}{''.join(f'{column:>{CELL}}' for column in side.columns)}  verdict  {'time':>7}  where")
    for seconds, outcome in _shared_out(cases, side, processes):
        say(
            f"{outcome.case!s:{width}}"
            f"{_columns({p: outcome.decisive(p).of_limit for p in outcome.results}, side.columns)}  "
            f"{'ok' if outcome.passed else 'OVER':7}  {seconds:5.1f} s  {where(*outcome.worst)}"
        )
        if outcome.terms:
            say(*_side_by_side(outcome).split("\n"))
        yield outcome


def _shared_out(cases: Sequence, side: Side, processes: int | None) -> Iterable:
    """Seconds and outcome of each case, in order. The trainings of a recipe share much, so that they are one task."""
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
        outcome = run_case(LADDER[number], side.programs)
        results, terms = (
            {side.column(by) if by != "PyTorch" else by: value for by, value in found.items()}
            for found in (outcome.results, outcome.terms)
        )
        made.append((time.perf_counter() - begun, results, terms))
    memory.give_back()
    return made


def _columns(values: dict[str, str], programs: Sequence[str], width: int = CELL) -> str:
    """One for each program; one for all of them for what runs once."""
    if "" in values:
        return f"{values[''] + ', once':>{max(width * len(programs), CELL)}}"
    return "".join(f"{values.get(program, ''):>{width}}" for program in programs)


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
            program: max(found)
            for program, made in outcome.results.items()
            if (found := [c.error for c in made if c.tensor.startswith(f"{kind} ")])
        }
        if not errors:
            continue
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
            limit, where = f"{tolerance:.0e}", f"  {program and f'{program}: '}{case.subject}: {comparison.tensor}"
        lines.append(f"{f'{rung} {RUNGS[rung]}':18}{limit:>7}{_columns(cells, programs, width)}{where}".rstrip())
    return "\n".join(lines)


def summary(outcomes: Sequence, seconds: float) -> str:
    over = [outcome for outcome in outcomes if not outcome.passed]
    compared = sum(len(outcome.comparisons) for outcome in outcomes)
    named = [f"{outcome.case}{f' ({by})' if (by := ', '.join(filter(None, outcome.over))) else ''}" for outcome in over]
    names = f": {'; '.join(named)}" if over else ""
    return f"{len(outcomes)} cases, {compared} comparisons, {len(over)} over tolerance{names}, in {seconds:.0f} s"


if __name__ == "__main__":
    run(main)
