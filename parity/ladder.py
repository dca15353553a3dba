"""Run the ladder's cases on each side, in several processes, and print their lines. Imports mindspore: import it
after `runtime.set_up`."""

import argparse
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from ms_vireid.backends.choosing import OF_DEVICE
from ms_vireid.command.errors import InputError
from ms_vireid.command.memory import available_memory
from ms_vireid.command.printing import say
from ms_vireid.command.stopping import how_broken
from ms_vireid.devices import runtime
from parity.cases import LADDER, ONCE, RUNGS, Outcome, backends_of, is_for_stand_ins
from parity.cases import run as run_case
from parity.harness import Case
from parity.memory import give_back
from parity.processes import executor, set_up_for_comparisons
from parity.stand_in import build

CELL, WORST = 18, 12  # characters of a backend's column, of cases and of rungs
SMALL_BYTES, FULL_BYTES = 4 << 30, 14 << 30  # of a process that computes small cases, or all
FULL_TASKS = 4  # of full size, which the same processes compute


@dataclass(frozen=True)
class Side:
    """A device and the backends by which it computes. stand_in: a stand-in replaces it."""

    device: str
    backends: tuple[str, ...]
    stand_in: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(map(self.column, self.backends))

    def column(self, backend: str) -> str:
        """Return the name of a backend's column; on a stand-in, which has the compiled backend only, the device's."""
        if not self.stand_in or backend == "":
            return backend
        return self.device.lower() if backend == "graph" else f"{self.device.lower()} {backend}"

    def __str__(self) -> str:
        return f"{self.device} (stand-in)" if self.stand_in else self.device


def main(arguments: argparse.Namespace, described: str, stand_ins: Sequence[str]) -> None:
    """described: this process's device, in words. stand_ins: the devices whose stand-ins compute."""
    chosen = [
        case
        for case in LADDER
        if (not arguments.rung or case.rung in arguments.rung)
        and (not arguments.match or arguments.match in case.subject)
        and (case.small or not arguments.small)
    ]
    sides = _sides(arguments, described, stand_ins)
    if arguments.renew:
        from parity.backends import renewed  # imports all backends

        with renewed((backend, side.device) for side in sides for backend in side.backends):
            _climb(arguments, described, chosen, sides)
        say("what the replacements stand for is written down: ms_vireid/backends/proven.json")
    else:
        _climb(arguments, described, chosen, sides)


def _climb(arguments: argparse.Namespace, described: str, chosen: Sequence[Case], sides: Sequence[Side]) -> None:
    """Run the cases on all sides, print the result, and exit with 1 if any is over its tolerance."""
    started_at = time.perf_counter()
    found: dict = {}  # by the case: results of all sides
    for side in sides:
        cases = [case for case in chosen if case.is_for(side.device) and (not side.stand_in or is_for_stand_ins(case))]
        if not cases:
            continue
        say(f"device: {side if side.stand_in else described}")
        for outcome in _run_all(cases, side, arguments.processes):
            found.setdefault(outcome.case, {}).update(outcome.results)
        say("")
    if not found:
        which = f"--match {arguments.match}" if arguments.match else "--rung on a stand-in, which has 2 to 5"
        raise InputError(f"no case matches {which}; leave it out to see them all")
    outcomes = [Outcome(case, found[case]) for case in chosen if case in found]
    columns = [column for side in sides for column in side.columns]
    closing = summary(outcomes, time.perf_counter() - started_at)
    say(*worst_by_rung(outcomes, columns).split("\n"), "", *closing.split("\n"))
    if not all(outcome.passed for outcome in outcomes):
        sys.exit(1)


def _sides(arguments: argparse.Namespace, described: str, stand_ins: Sequence[str]) -> list[Side]:
    """Return the sides that compute. described: this process's device, which computes, too, if --device is auto.

    Raises:
        InputError: a backend that no side has.
    """
    wanted = arguments.backend
    if not stand_ins:
        return [Side(described.split()[0], backends_of(described, wanted))]
    sides = [Side("CPU", backends_of("CPU", wanted))] if arguments.device == "auto" else []
    for device in stand_ins:
        backends = tuple(backend for backend in wanted or ["graph"] if backend in OF_DEVICE[device])
        if not backends:
            known = " and ".join(OF_DEVICE[device])
            raise InputError(f"--backend {' '.join(wanted)}: the stand-in {device} has {known}")
        sides.append(Side(device, backends, stand_in=True))
    return sides


def _run_all(cases: Sequence, side: Side, processes: int | None) -> Iterable:
    width = max(len(str(case)) for case in cases)
    say(f"{'case':{width}}{''.join(f'{column:>{CELL}}' for column in side.columns)}  verdict  {'time':>7}  where")
    for seconds, outcome in _shared_out(cases, side, processes):
        by, worst = outcome.worst
        place = f"{by and f'{by}: '}{worst.tensor}, {worst.detail}"
        say(
            f"{outcome.case!s:{width}}"
            f"{_columns({p: outcome.decisive(p).of_limit for p in outcome.results}, side.columns)}  "
            f"{'ok' if outcome.passed else 'OVER':7}  {seconds:5.1f} s  {place}"
        )
        yield outcome


def _shared_out(cases: Sequence, side: Side, processes: int | None) -> Iterable:
    """Yield seconds and outcome of each case, in order. A recipe's trainings share work, so they are one task."""
    tasks = [list(together) for _, together in groupby(cases, lambda case: case.training or case)]
    least = SMALL_BYTES if all(case.small for case in cases) else FULL_BYTES
    shared = side.device == "CPU" or side.stand_in
    fitting = max(1, min(2, len(runtime.cores()), available_memory() // least))
    count = min(processes or (fitting if shared else 1), len(tasks))
    parts = _parts(tasks) if shared else [tasks]
    if len(parts) == count == 1 and not side.stand_in:  # in this process
        for task in tasks:
            yield from _outcomes(task, _run_task(side, _places(task)))
        return
    for part in parts:
        with executor(min(count, len(part)), set_up_for_comparisons, side.device) as others:
            # What begins with the first tasks is on the stand-in.
            with runtime.environment(build(side.device).environment()) if side.stand_in else nullcontext():
                done = others.map(partial(_run_task, side), map(_places, part))
            children = multiprocessing.active_children()
            for task in part:
                try:
                    made = next(done)
                except BrokenProcessPool:
                    others.shutdown()
                    raise InputError(
                        f"{side}: {how_broken(children)}, at {task[0]} or soon after; --processes 1 needs less memory, "
                        "--rung and --match choose cases"
                    ) from None
                yield from _outcomes(task, made)


def _parts(tasks: Sequence[Sequence[Case]]) -> list[list[Sequence[Case]]]:
    """Tasks for the same processes: MindSpore gives a model's memory back where its process ends."""
    parts, full = [[]], 0
    for task in tasks:
        parts[-1].append(task)
        full += not all(case.small for case in task)
        if full == FULL_TASKS:
            parts, full = [*parts, []], 0
    return list(filter(None, parts))


def _places(task: Sequence[Case]) -> list[int]:
    """Places on the ladder: a case cannot be sent."""
    return [LADDER.index(case) for case in task]


def _outcomes(task: Sequence[Case], made: Sequence[tuple]) -> Iterable:
    for case, (seconds, results) in zip(task, made, strict=True):
        yield seconds, Outcome(case, results)


def _run_task(side: Side, numbers: Sequence[int]) -> list[tuple]:
    """Return seconds and results of cases, given by their places on the ladder."""
    made = []
    for number in numbers:
        begun = time.perf_counter()
        outcome = run_case(LADDER[number], side.backends)
        results = {side.column(backend): comparisons for backend, comparisons in outcome.results.items()}
        made.append((time.perf_counter() - begun, results))
    give_back()
    return made


def _columns(values: dict[str, str], backends: Sequence[str], width: int = CELL) -> str:
    """Return a column for each backend, and one for all for what runs once."""
    if "" in values:
        return f"{values[''] + ', once':>{max(width * len(backends), CELL)}}"
    return "".join(f"{values.get(backend, ''):>{width}}" for backend in backends)


def worst_by_rung(outcomes: Sequence, backends: Sequence[str]) -> str:
    """For each rung, and each kind of limit in it, the comparison of each backend that came nearest to it."""
    found = defaultdict(lambda: defaultdict(list))  # by the rung, whether it runs once, the limit, and the backend
    for outcome in outcomes:
        for backend, comparisons in outcome.results.items():
            for comparison in comparisons:
                group = found[outcome.case.rung, backend == ONCE, comparison.tolerance]
                group[backend].append((outcome.case, comparison))
    width = max(WORST, *(len(backend) + 2 for backend in backends))
    lines = [f"{'rung':18}{'limit':>7}{''.join(f'{backend:>{width}}' for backend in backends)}  the nearest of all"]
    for (rung, _, tolerance), by_backend in sorted(found.items()):
        if tolerance == 0.0:
            cells = {p: f"{sum(c.passed for _, c in made)} of {len(made)}" for p, made in by_backend.items()}
            limit, where = "exact", ""
        else:
            worst = {p: max(made, key=lambda pair: pair[1].closeness) for p, made in by_backend.items()}
            cells = {p: f"{c.error:.1e}" for p, (_, c) in worst.items()}
            backend, (case, comparison) = max(worst.items(), key=lambda item: item[1][1].closeness)
            limit, where = f"{tolerance:.0e}", f"  {backend and f'{backend}: '}{case.subject}: {comparison.tensor}"
        lines.append(f"{f'{rung} {RUNGS[rung]}':18}{limit:>7}{_columns(cells, backends, width)}{where}".rstrip())
    return "\n".join(lines)


def summary(outcomes: Sequence, seconds: float) -> str:
    over = [outcome for outcome in outcomes if not outcome.passed]
    compared = sum(len(outcome.comparisons) for outcome in outcomes)
    named = [f"{outcome.case}{f' ({by})' if (by := ', '.join(filter(None, outcome.over))) else ''}" for outcome in over]
    names = f": {'; '.join(named)}" if over else ""
    return f"{len(outcomes)} cases, {compared} comparisons, {len(over)} over tolerance{names}, in {seconds:.0f} s"
