"""Queries and the first ten of their rankings under the data set's protocol (PMT Fig. 7 d)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ms_vireid.command.errors import refuse
from ms_vireid.data.records import ImageSet
from ms_vireid.evaluation.protocol import Trial
from ms_vireid.evaluation.ranking import query_groups
from ms_vireid.visualization.figure import RIGHT, WRONG, new_figure, shortened, show_picture, styled

SHOWN = 10
MARKS = {True: ("✓ ", RIGHT, 2.6), False: ("✗ ", WRONG, 1.4), None: ("", "#444444", 0)}  # and the frame's width


@dataclass(frozen=True, eq=False)
class RankedQuery:
    """A query's ranking, without the pictures that the protocol ignores.

    query: index of a test picture. gallery: indices int [G], nearest first. similarity: inner products, float [G].
    matches: bool [G], whether the identity is the query's.
    """

    query: int
    gallery: np.ndarray
    similarity: np.ndarray
    matches: np.ndarray

    @property
    def average_precision(self) -> float:
        ranks = 1 + np.flatnonzero(self.matches)
        return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def rank_queries(features: np.ndarray, test: ImageSet, trial: Trial, protocol: str) -> list[RankedQuery]:
    """Rank the gallery as `evaluate_trials` does, for every query with a match, in the order of the trial.

    features: float32 [N, C], L2-normalised, one row for each picture of `test`. Ties keep the gallery's order.
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
            ranked[query] = RankedQuery(trial.query[query], trial.gallery[order], similarity[query, order], matches)
    return [ranked[query] for query in sorted(ranked)]


def choose_queries(ranked: Sequence[RankedQuery], count: int, choice: str) -> list[RankedQuery]:
    """Choose `count` queries: "spread" evenly over all, or by the "best" or "worst" average precision."""
    if choice == "spread":
        return [ranked[i] for i in np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).astype(int))]
    in_order = sorted(ranked, key=lambda one: one.average_precision, reverse=choice == "best")
    return in_order[:count]


def find_queries(ranked: Sequence[RankedQuery], test: ImageSet, pictures: Sequence[Path]) -> list[RankedQuery]:
    """Find the queries of these pictures, in order. Raises InputError if one is not a query with a match."""
    by_path = {test.paths[one.query].resolve(): one for one in ranked}
    if unknown := [str(path) for path in pictures if path.resolve() not in by_path]:
        example = f"a query is, for example, {test.paths[ranked[0].query]}"
        remedy = f"{example}; retrieve.py --sheet searches with any picture"
        refuse(unknown, "--query: pictures that are not queries of the test set", remedy)
    return [by_path[path.resolve()] for path in pictures]


class Tile(NamedTuple):
    """A picture in a row, pixels [H, W, 3], whether it is right (None: unknown), and one or two lines below it."""

    pixels: np.ndarray
    right: bool | None
    text: str
    further: str = ""


@styled
def draw_rows(rows: Sequence[Sequence[Tile]], side: float) -> Figure:
    """Draw a row for each query: itself, then its hits. A right one has a thick green frame and a tick, a wrong one a
    thin red frame and a cross. side: width of a column in inches."""
    height, width = rows[0][0].pixels.shape[:2]
    columns = max(map(len, rows)) - 1
    below = 0.35 if any(tile.further for tiles in rows for tile in tiles) else 0.2
    figure = new_figure((columns + 1.4) * side, len(rows) * (0.9 * side * height / width + below) + 0.3)
    grid = figure.subplots(len(rows), columns + 2, squeeze=False, width_ratios=[1.0, 0.15, *[1.0] * columns])
    for axes in grid.flat:
        axes.set_axis_off()
    for row, tiles in enumerate(rows):
        for rank, (axes, tile) in enumerate(zip(np.delete(grid[row], 1), tiles, strict=False)):
            axes.set_axis_on()
            show_picture(axes, tile.pixels, "" if row else f"{rank or 'query'}")
            symbol, colour, thickness = MARKS[tile.right]
            frame = Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=colour, linewidth=thickness)
            frame.set_clip_on(False)
            axes.add_patch(frame)
            axes.set_xlabel(f"{symbol}{tile.text}", color=colour, fontsize=7, fontweight="bold", labelpad=2)
            axes.annotate(
                tile.further, (0.5, 0), (0, -13), "axes fraction", "offset points", fontsize=6, ha="center", va="top"
            )
    return figure


def draw_ranking(ranked: Sequence[RankedQuery], test: ImageSet, load: Callable[[ImageSet, int], np.ndarray]) -> Figure:
    """Draw each query with the first ten of its ranking and their similarities. load: decodes, as
    `TrainedModel.load_image`."""
    rows = []
    for one in ranked:
        first = zip(one.gallery[:SHOWN], one.matches, one.similarity, strict=False)
        tiles = [Tile(load(test, i), bool(right), f"{s:.2f}") for i, right, s in first]
        query = load(test, one.query)
        name = shortened(test.name(one.query), 9)
        rows.append([Tile(query, None, f"id {name}" if len(name) <= 6 else name), *tiles])
    return draw_rows(rows, 0.62)
