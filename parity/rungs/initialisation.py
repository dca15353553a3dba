"""Rung 7: every parameter's initial distribution by name, tested on samples.

A parameter that starts as a constant must be that constant in both frameworks. For the others, draws of several seeds
are pooled and four statistics of the two samples compared in standard errors: 5 is beyond chance (once in two million),
while another family, mean, spread or bound is hundreds off.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import torch
from scipy import stats

from ms_vireid.checkpoints.weights import COUNTER
from ms_vireid.models import create_model as mindspore_model
from parity.compare import EXACT, Comparison, compare, compare_names
from parity.harness import once
from parity.mapping import values
from parity.rungs.models import CLASSES, MODELS, Model
from torch_ref.models import create_model as torch_model

SEEDS = 4
STANDARD_ERRORS = 5.0
TAIL = 1e-6  # probability below which two samples are not of one family


def initial_values(model: Model) -> list[Comparison]:
    arguments = (model.name, CLASSES, model.image_size)
    actual = _draws(ms.set_seed, lambda: values(mindspore_model(*arguments, **model.settings)))
    expected = _draws(torch.manual_seed, lambda: _torch(torch_model(*arguments, **model.settings)))
    comparisons = [compare_names("parameters", actual, expected)]
    for name in expected.keys() & actual.keys():
        comparisons += _same_distribution(name, actual[name], expected[name])
    return comparisons


def _draws(seed: Callable[[int], Any], build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Build the model with several seeds and return its values by name: [SEEDS, size]."""
    drawn = defaultdict(list)
    for number in range(SEEDS):
        seed(number)
        for name, value in build().items():
            drawn[name].append(value.ravel())
    return {name: np.stack(values) for name, values in drawn.items()}


def _torch(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: v.numpy() for name, v in module.state_dict().items() if not name.endswith(COUNTER)}


def _same_distribution(name: str, actual: np.ndarray, expected: np.ndarray) -> list[Comparison]:
    if (expected == expected[0]).all():
        return [compare(f"{name}, constant", actual, expected, EXACT)]
    a, b = actual.ravel().astype(np.float64), expected.ravel().astype(np.float64)
    n, spread = len(b), b.std()
    mean = abs(a.mean() - b.mean()) / (spread * np.sqrt(2 / n))
    # The logarithm of a standard deviation has variance (kurtosis - 1) / 4n.
    kurtosis = stats.kurtosis(b, fisher=False)
    deviation = abs(np.log(a.std() / spread)) / np.sqrt(2 * (kurtosis - 1) / (4 * n)) if a.std() else np.inf
    family = stats.ks_2samp(a, b)
    # A bound: beyond the other sample's extremes there should be next to nothing.
    beyond = max(np.mean(np.abs(a) > 1.2 * np.abs(b).max()), np.mean(np.abs(b) > 1.2 * np.abs(a).max()))
    repeated = max(_repeats(actual), _repeats(expected))
    described = f"{n} draws: mean {a.mean():.2e} and {b.mean():.2e}, std {a.std():.3e} and {b.std():.3e}"
    return [
        Comparison(f"{name}, mean", mean, STANDARD_ERRORS, described),
        Comparison(f"{name}, standard deviation", deviation, STANDARD_ERRORS, described),
        Comparison(f"{name}, family", float(family.pvalue < TAIL), EXACT, f"Kolmogorov-Smirnov p {family.pvalue:.1e}"),
        Comparison(f"{name}, bounds", beyond, 1e-2, f"largest {np.abs(a).max():.3e} and {np.abs(b).max():.3e}"),
        Comparison(f"{name}, seeds", repeated, EXACT, "draws of different seeds differ"),
    ]


def _repeats(draws: np.ndarray) -> float:
    """Return 1 if two seeds gave the same values, else 0."""
    return float(len(np.unique(draws, axis=0)) < len(draws))


CASES = [once(7, name, initial_values, model) for name, model in MODELS.items() if model.small]
