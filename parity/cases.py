"""The parity ladder: every case of its seven rungs, from the bottom up."""

from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import torch

from ms_vireid.backends.choosing import OF_DEVICE
from ms_vireid.command.errors import InputError
from parity.compare import REACH, Comparison
from parity.harness import Case
from parity.rungs import initialisation, layers, losses, models, names, pipeline, training

RUNGS = {1: "names", 2: "layers", 3: "losses", 4: "models", 5: "training", 6: "pipeline", 7: "initialisation"}
COMPUTING = (2, 3, 4, 5)  # the rungs whose results depend on the device
LADDER: tuple[Case, ...] = (
    *names.CASES,
    *layers.CASES,
    *losses.CASES,
    *models.CASES,
    *training.CASES,
    *pipeline.CASES,
    *initialisation.CASES,
)


ONCE = ""  # instead of a backend: no backend takes part in the case
_ORDER = ("eager", "graph", "cuda", "numba")  # kernels, once installed, stay


@dataclass(frozen=True)
class Outcome:
    """The comparisons of a case by each backend, in order: a difference starts at the first one over. Backends that
    are the same for this case share their comparisons."""

    case: Case
    results: dict[str, tuple[Comparison, ...]]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All comparisons, each once."""
        made = {id(comparisons): comparisons for comparisons in self.results.values()}
        return tuple(comparison for comparisons in made.values() for comparison in comparisons)

    @property
    def passed(self) -> bool:
        return not self.over

    @property
    def over(self) -> tuple[str, ...]:
        """Backends with a comparison over its tolerance."""
        return tuple(name for name, made in self.results.items() if not all(comparison.passed for comparison in made))

    @property
    def worst(self) -> tuple[str, Comparison]:
        """The backend whose decisive comparison is furthest over its tolerance or nearest to it, and the comparison."""
        decisive = {backend: self.decisive(backend) for backend in self.results}
        return max(decisive.items(), key=lambda item: (not item[1].passed, item[1].closeness))

    def decisive(self, backend: str) -> Comparison:
        """Return the first comparison over its tolerance, else the nearest to it, bounds aside."""
        for comparison in self.results[backend]:
            if not comparison.passed:
                return comparison
        return max(self.results[backend], key=lambda comparison: (comparison.tolerance != REACH, comparison.closeness))


def backends_of(device: str, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the wanted backends of the device, by default all, in the usual order. device: in words, its name first.

    Raises:
        InputError: one that the device does not have.
    """
    name = device.split()[0]
    for backend in wanted or ():
        if backend not in OF_DEVICE[name]:
            known = " and ".join(OF_DEVICE[name])
            raise InputError(f"--backend {backend}: {name} has {known}")
    return tuple(backend for backend in OF_DEVICE[name] if backend in (wanted or OF_DEVICE[name]))


def run(case: Case, backends: Sequence[str] | None = None) -> Outcome:
    """Run one case by some of the device's backends, by default all.

    Raises:
        ValueError: the case compared nothing.
    """
    wanted = {backend: _as(backend, case) for backend in backends or OF_DEVICE[ms.get_context("device_target")]}
    _set_seeds()
    by = case.prepare()
    made = {}
    for backend in filter(set(wanted.values()).__contains__, (ONCE, *_ORDER)):
        _set_seeds()
        made[backend] = tuple(by(backend))
        if not made[backend]:
            raise ValueError(f"case '{case}' compares nothing")
    if not case.backends:
        return Outcome(case, made)
    return Outcome(case, {backend: made[same] for backend, same in wanted.items()})


def is_for_stand_ins(case: Case) -> bool:
    """Return whether the device takes part in the case, and a stand-in needs only seconds for it."""
    return case.rung in COMPUTING and bool(case.backends) and (case.small or bool(case.training))


def _as(backend: str, case: Case) -> str:
    """Return the backend that computes a case in place of this one: no kernel replaces a plain function, so that
    "numba" is "eager" there, and "cuda" is "graph"."""
    if not case.backends:
        return ONCE
    return backend if backend in case.backends else {"cuda": "graph"}.get(backend, "eager")


def _set_seeds() -> None:
    """Seed the initial weights, so that a case computes the same whatever ran before it."""
    ms.set_seed(0)
    torch.manual_seed(0)
