"""Cosine similarities of positive and negative pairs across the modalities, and how far they overlap (PMT Fig. 8)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ms_vireid.command.errors import InputError
from ms_vireid.data.records import ImageSet
from ms_vireid.visualization.figure import RIGHT, WRONG, new_figure, styled

PAIRS = 10_000  # of each kind, at most, as in the paper
BINS = 60


@dataclass(frozen=True, eq=False)
class Similarities:
    """Cosines of visible-infrared pairs of the same identity and of different ones, float32 [n] each."""

    positive: np.ndarray
    negative: np.ndarray


def sample_similarities(features: np.ndarray, images: ImageSet, seed: int = 0, pairs: int = PAIRS) -> Similarities:
    """Of `pairs` pairs of each kind, drawn without replacement; of all where there are fewer.

    features: float32 [N, C], L2-normalised.

    Raises:
        InputError: there is no pair of a kind.
    """
    rng = np.random.default_rng(seed)
    visible, infrared = np.flatnonzero(~images.infrared), np.flatnonzero(images.infrared)
    same = _positive_pairs(images.identities[visible], images.identities[infrared])
    total = len(visible) * len(infrared)
    if not len(same) or len(same) == total:
        kind = "the same identity" if not len(same) else "different identities"
        raise InputError(f"no visible-infrared pair of {kind} among {len(images)} pictures; give a larger test set")
    positive = same if len(same) <= pairs else rng.choice(same, pairs, replace=False)
    negative = _negative_pairs(same, total, min(pairs, total - len(same)), rng)
    return Similarities(*(_cosines(features, visible, infrared, chosen) for chosen in (positive, negative)))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The area that two distributions share, 0 (apart) to 1 (alike): the sum of the smaller of both shares of `BINS`
    bins over their common range. Two samples of one distribution, 10,000 each, give about 0.97."""
    low, high = min(first.min(), second.min()), max(first.max(), second.max())
    if low == high:
        return 1.0
    shares = [np.histogram(values, BINS, (low, high))[0] / len(values) for values in (first, second)]
    return float(np.minimum(*shares).sum())


def _positive_pairs(visible_ids: np.ndarray, infrared_ids: np.ndarray) -> np.ndarray:
    """Numbers v * infrared + r of the pairs of one identity, ascending."""
    order = np.argsort(infrared_ids, kind="stable")
    first = np.searchsorted(infrared_ids[order], visible_ids, "left")
    last = np.searchsorted(infrared_ids[order], visible_ids, "right")
    numbers = [v * len(infrared_ids) + order[a:b] for v, (a, b) in enumerate(zip(first, last, strict=True)) if a < b]
    return np.sort(np.concatenate(numbers)) if numbers else np.zeros(0, int)


def _negative_pairs(same: np.ndarray, total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` distinct numbers below `total` that are not in `same`, which is ascending.

    The k-th number not in `same` is k plus how many of `same` come before it, so the k are drawn.
    """
    chosen = rng.choice(total - len(same), count, replace=False)
    return chosen + np.searchsorted(same - np.arange(len(same)), chosen, "right")


def _cosines(features: np.ndarray, visible: np.ndarray, infrared: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    v, r = np.divmod(pairs, len(infrared))
    return np.einsum("nc,nc->n", features[visible[v]], features[infrared[r]])


@styled
def draw_similarity(similarities: Sequence[Similarities], labels: Sequence[str]) -> Figure:
    """A panel for each checkpoint, with the overlap and both means above it; the similarities' axis is common."""
    figure = new_figure(3.1 * len(labels) + 0.3, 2.5)
    grid = figure.subplots(1, len(labels), squeeze=False, sharex=True)[0]
    everything = np.concatenate([part for one in similarities for part in (one.positive, one.negative)])
    bins = np.linspace(everything.min(), everything.max(), BINS + 1)
    for axes, one, label in zip(grid, similarities, labels, strict=True):
        shares = [100 * np.histogram(values, bins)[0] / len(values) for values in (one.positive, one.negative)]
        axes.stairs(shares[0], bins, fill=True, color=RIGHT, alpha=0.4)
        axes.stairs(shares[0], bins, color=RIGHT, linewidth=1.2)
        axes.stairs(shares[1], bins, fill=True, facecolor="none", edgecolor=WRONG, hatch="//////", linewidth=0)
        axes.stairs(shares[1], bins, color=WRONG, linestyle="--", linewidth=1.2)
        means = f"means {one.positive.mean():.2f} and {one.negative.mean():.2f}"
        axes.set_title(f"{label}\noverlap {overlap(one.positive, one.negative):.1%}, {means}")
        axes.set_xlabel("cosine similarity of visible and infrared")
    grid[0].set_ylabel("pairs [%]")
    one = similarities[0]
    handles = [
        Patch(facecolor=(RIGHT, 0.4), edgecolor=RIGHT, label=f"same identity ({len(one.positive):,} pairs)"),
        Patch(
            facecolor="none",
            edgecolor=WRONG,
            hatch="//////",
            linestyle="--",
            label=f"different identities ({len(one.negative):,} pairs)",
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(2, len(labels)))  # two are wider than a panel
    return figure
