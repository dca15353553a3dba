"""Queries with the first ten of their ranking under the data set's protocol (PMT Fig. 7 d)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ms_vireid.data.records import ImageSet
from ms_vireid.data.transforms import load_image
from ms_vireid.evaluation.protocol import Trial
from ms_vireid.evaluation.ranking import query_groups
from ms_vireid.visualization.figure import RIGHT, WRONG, new_figure, show_picture, styled

SHOWN = 10


@dataclass(frozen=True, eq=False)
class Ranked:
    """A query's ranking: indices of pictures of the test set, nearest first, without those the protocol ignores.

    similarity: inner products, float [G]. matches: bool [G], where the identity is the query's. query: its index.
    """

    query: int
    gallery: np.ndarray
    similarity: np.ndarray
    matches: np.ndarray

    @property
    def average_precision(self) -> float:
        ranks = 1 + np.flatnonzero(self.matches)
        return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def rank_queries(features: np.ndarray, test: ImageSet, trial: Trial, protocol: str) -> list[Ranked]:
    """The rankings that `evaluate_trials` counts, of every query that has a match, in the order of the trial's queries.

    features: float32 [N, C], one row for each picture of `test`, L2-normalised. Equal distances are in gallery order.
    """
    query_ids, gallery_ids = test.identities[trial.query], test.identities[trial.gallery]
    cameras = test.cameras[trial.query], test.cameras[trial.gallery]
    similarity = features[trial.query] @ features[trial.gallery].T
    ranked = {}
    for group in query_groups(query_ids, gallery_ids, *cameras, protocol):
        kept = np.setdiff1d(np.arange(len(gallery_ids)), group.ignored)
        for query in group.queries:
            order = kept[np.argsort(np.float32(1) - similarity[query, kept], kind="stable")]
            matches = gallery_ids[order] == query_ids[query]
            ranked[query] = Ranked(trial.query[query], trial.gallery[order], similarity[query, order], matches)
    return [ranked[query] for query in sorted(ranked)]


def choose_queries(ranked: Sequence[Ranked], count: int, choice: str) -> list[Ranked]:
    """`count` queries: "spread" evenly over all, or those of the "best" or "worst" average precision, in that order."""
    if choice == "spread":
        return [ranked[i] for i in np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).astype(int))]
    in_order = sorted(ranked, key=lambda one: one.average_precision, reverse=choice == "best")
    return in_order[:count]


@styled
def draw_ranking(ranked: Sequence[Ranked], test: ImageSet, image_size: tuple[int, int]) -> Figure:
    """A row for each query: the query, then its first ten with a thick green frame and a tick, or a thin red frame and
    a cross, beside the similarity."""
    side = 0.62  # inches, of a column
    figure = new_figure((SHOWN + 1.4) * side, len(ranked) * (0.9 * side * image_size[0] / image_size[1] + 0.2) + 0.3)
    widths = [1.0, 0.15, *[1.0] * SHOWN]
    grid = figure.subplots(len(ranked), len(widths), squeeze=False, width_ratios=widths)
    for row, one in enumerate(ranked):
        query, _, *places = grid[row]
        show_picture(query, load_image(test.paths[one.query], image_size), "query" if row == 0 else "")
        query.set_xlabel(f"id {test.identities[one.query]}", fontsize=7, labelpad=2)
        for axes in (grid[row, 1], *places[len(one.gallery) :]):
            axes.set_axis_off()
        found = zip(places, one.gallery, one.matches, one.similarity, strict=False)
        for rank, (axes, index, right, similarity) in enumerate(found, 1):
            show_picture(axes, load_image(test.paths[index], image_size), f"{rank}" if row == 0 else "")
            axes.add_patch(frame(image_size, right))
            symbol, colour = ("✓", RIGHT) if right else ("✗", WRONG)
            text = f"{symbol} {similarity:.2f}"
            axes.set_xlabel(text, color=colour, fontsize=7, fontweight="bold", labelpad=2)
    return figure


def frame(image_size: tuple[int, int], right: bool) -> Rectangle:
    """Around a picture of that size: thick and green, or thin and red."""
    height, width = image_size
    colour, thickness = (RIGHT, 2.6) if right else (WRONG, 1.4)
    return Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=colour, linewidth=thickness, clip_on=False)
