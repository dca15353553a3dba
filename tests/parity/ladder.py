"""A case of the ladder as a test."""

from dataclasses import replace
from functools import cache

from ms_vireid.backends.choosing import OF_DEVICE
from parity import trajectory
from parity.cases import LADDER, ONCE, run
from parity.rungs import training

BACKENDS = OF_DEVICE["CPU"]


def of_rungs(*rungs):
    return [case for case in LADDER if case.rung in rungs and case.is_for("CPU")]


def check(case, backends=BACKENDS):
    """All of a case's comparisons within their tolerance, by each of the backends."""
    outcome = run(case, backends)
    over = [f"{backend} {c}" for backend, made in outcome.results.items() for c in made if not c.passed]
    assert not over, f"{len(over)} of {len(outcome.comparisons)} over tolerance, the first: {over[0]}"
    assert set(outcome.results) == (set(backends) if case.backends else {ONCE})


def shorten_trainings(monkeypatch, recipes, steps):
    """Let trainings of these recipes take fewer steps than the ladder's twenty, within the test."""
    for recipe in recipes:
        monkeypatch.setitem(trajectory.RECIPES, recipe, replace(trajectory.RECIPES[recipe], steps=steps))
    for function in (
        *(trajectory.reference, trajectory.trajectories, trajectory._half_in_torch),
        *(trajectory.in_half, trajectory.by_autocast),
    ):
        monkeypatch.setattr(trajectory, function.__name__, cache(function.__wrapped__))
        monkeypatch.setattr(training, function.__name__, getattr(trajectory, function.__name__), raising=False)
