"""A case of the ladder as a test."""

from ms_vireid.programs.program import OF_DEVICE
from parity.cases import LADDER, ONCE, run

PROGRAMS = OF_DEVICE["CPU"]


def of_rungs(*rungs):
    return [case for case in LADDER if case.rung in rungs and case.is_for("CPU")]


def check(case, programs=PROGRAMS):
    """All of a case's comparisons within their tolerance, by each of the programs."""
    outcome = run(case, programs)
    over = [f"{program} {c}" for program, made in outcome.results.items() for c in made if not c.passed]
    assert not over, f"{len(over)} of {len(outcome.comparisons)} over tolerance, the first: {over[0]}"
    assert set(outcome.results) == (set(programs) if case.programs else {ONCE})
