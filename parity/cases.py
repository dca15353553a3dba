"""The parity ladder: every case of its seven rungs, from the bottom up."""

from dataclasses import dataclass

import mindspore as ms
import torch

from parity.compare import REACH, Comparison, on_device
from parity.harness import Case
from parity.rungs import initialisation, layers, losses, models, names, pipeline, training

RUNGS = {
    1: "names",
    2: "layers",
    3: "losses",
    4: "models",
    5: "training",
    6: "pipeline",
    7: "initialisation",
}
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


@dataclass(frozen=True)
class Outcome:
    """A case that was run: all its comparisons, in order, so that the first one over is where a difference starts."""

    case: Case
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        return all(comparison.passed for comparison in self.comparisons)

    @property
    def decisive(self) -> Comparison:
        """The first comparison over its tolerance, else the one that came nearest to it, bounds aside."""
        for comparison in self.comparisons:
            if not comparison.passed:
                return comparison
        return max(self.comparisons, key=lambda comparison: (comparison.tolerance != REACH, closeness(comparison)))


def closeness(comparison: Comparison) -> float:
    """The error as a share of the tolerance; 0 for an exact comparison that holds."""
    return comparison.error / comparison.tolerance if comparison.tolerance else comparison.error


def run(case: Case) -> Outcome:
    """Run one case, on the device that MindSpore has, with that device's tolerances.

    Raises:
        ValueError: the case compared nothing.
    """
    ms.set_seed(0)  # of initial weights: a case computes the same whatever was run before it
    torch.manual_seed(0)
    comparisons = tuple(case.run())
    if not comparisons:
        raise ValueError(f"case '{case}' compares nothing")
    if ms.get_context("device_target") != "CPU" and case.rung in COMPUTING:
        comparisons = tuple(map(on_device, comparisons))
    return Outcome(case, comparisons)
