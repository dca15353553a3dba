"""Cosine similarities of positive and negative cross-modality pairs, and their overlap (PMT Fig. 8)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ms_vireid.command.errors import InputError
from ms_vireid.data.records import ImageSet
from ms_vireid.visualization.figure import RIGHT, WRONG, add_legend, new_figure, styled

PAIRS = 10_000  # of each kind, at most, as in the paper
BINS = 60


class Similarities(NamedTuple):
    """Cosines of visible-infrared pairs of the same identity and of different ones, float32 [n] each."""

    positive: np.ndarray
    negative: np.ndarray

    def __str__(self) -> str:
        means = f"means {self.positive.mean():.2f} and {self.negative.mean():.2f}"
        return f"overlap {overlap(self.positive, self.negative):.1%}, {means}"


def sample_similarities(features: np.ndarray, images: ImageSet, seed: int = 0, pairs: int = PAIRS) -> Similarities:
    """Draw `pairs` pairs of each kind without replacement, or all if there are fewer.

    features: float32 [N, C], L2-normalised.

    Raises:
        InputError: one kind has no pair.
    """
    rng = np.random.default_rng(seed)
    visible, infrared = np.flatnonzero(~images.infrared), np.flatnonzero(images.infrared)
    same = (images.identities[visible][:, None] == images.identities[infrared]).ravel()
    positive = np.flatnonzero(same)
    if len(positive) in (0, len(same)):
        kind = "different identities" if len(positive) else "the same identity"
        raise InputError(f"no visible-infrared pair of {kind} among {len(images)} pictures; give a larger test set")
    # Even if all positive pairs are drawn, enough negative ones are left; SYSU-MM01 has too many of those to list.
    drawn = rng.choice(len(same), min(len(same), pairs + len(positive)), replace=False)
    negative = drawn[~same[drawn]][:pairs]
    positive = rng.choice(positive, min(pairs, len(positive)), replace=False)
    rows = (np.divmod(chosen, len(infrared)) for chosen in (positive, negative))
    return Similarities(*(np.einsum("nc,nc->n", features[visible[v]], features[infrared[r]]) for v, r in rows))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Measure the area that two distributions share, 0 (disjoint) to 1 (identical): the sum over `BINS` bins of the
    smaller share. Two samples of one distribution, 10,000 each, give about 0.97."""
    low, high = min(first.min(), second.min()), max(first.max(), second.max())
    if low == high:
        return 1.0
    shares = [np.histogram(values, BINS, (low, high))[0] / len(values) for values in (first, second)]
    return float(np.minimum(*shares).sum())


@styled
def draw_similarity(similarities: Sequence[Similarities], labels: Sequence[str]) -> Figure:
    """Draw a panel for each checkpoint, with the overlap and both means above it and a common axis of similarities."""
    figure = new_figure(3.1 * len(labels) + 0.3, 2.3)
    grid = figure.subplots(1, len(labels), squeeze=False, sharex=True)[0]
    everything = np.concatenate([part for one in similarities for part in one])
    bins = np.linspace(everything.min(), everything.max(), BINS + 1)
    for axes, one, label in zip(grid, similarities, labels, strict=True):
        shares = [100 * np.histogram(values, bins)[0] / len(values) for values in one]
        axes.stairs(shares[0], bins, fill=True, color=RIGHT, alpha=0.4)
        axes.stairs(shares[0], bins, color=RIGHT, linewidth=1.2)
        axes.stairs(shares[1], bins, fill=True, facecolor="none", edgecolor=WRONG, hatch="//////", linewidth=0)
        axes.stairs(shares[1], bins, color=WRONG, linestyle="--", linewidth=1.2)
        axes.set_title(f"{label}\n{one}")
        axes.set_xlabel("cosine similarity of visible and infrared")
    grid[0].set_ylabel("pairs [%]")
    kinds = zip(("same identity", "different identities"), similarities[0], strict=True)
    same, others = (f"{kind} ({len(values):,} pairs)" for kind, values in kinds)
    handles = [
        Patch(facecolor=(RIGHT, 0.4), edgecolor=RIGHT, label=same),
        Patch(facecolor="none", edgecolor=WRONG, hatch="//////", linestyle="--", label=others),
    ]
    add_legend(figure, handles, len(handles))
    return figure
