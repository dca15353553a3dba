"""What a search finds, and the order in which it is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_vireid.data.layout import UNKNOWN

NOTHING = -1  # in place of an index where there are fewer than top_k


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery or a query. path: its name in the feature file. file: its place on disk."""

    path: str
    file: Path
    modality: str
    camera: int
    identity: int


@dataclass(frozen=True)
class Hit:
    """A picture of the gallery that was found, with its inner product with the query."""

    picture: Picture
    similarity: float


@dataclass(frozen=True)
class Found:
    """A query with its hits, nearest first."""

    query: Picture
    hits: list[Hit]

    def match(self, hit: Hit) -> bool | None:
        """Whether a hit shows the query's identity; None if either is unknown."""
        if UNKNOWN in (self.query.identity, hit.picture.identity):
            return None
        return self.query.identity == hit.picture.identity


@dataclass(frozen=True)
class Wanted:
    """Which pictures of a gallery are searched: those of some cameras, those taken at or after a time.

    since: seconds since 1970 in UTC. A picture whose camera or time is unknown is not among the wanted.
    """

    cameras: tuple[int, ...] | None = None
    since: float | None = None

    def __bool__(self) -> bool:
        return self.cameras is not None or self.since is not None


def nearest(
    search: Callable[[int], tuple[np.ndarray, np.ndarray]], top_k: int, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first `top_k` of a ranking as `evaluate_ranking` orders it, from an index that orders equals as it likes.

    search: count -> similarities float32 [Q, count], descending, and what they belong to, int64 [Q, count], which
    orders equal distances; NOTHING where there are fewer. It is asked for more until the equals of the last one end,
    or `limit` is reached.

    Returns the same as `search`, [Q, min(top_k, limit)].
    """
    top_k = min(top_k, limit)
    count = min(top_k + 1, limit)
    while True:
        similarity, index = search(count)
        # As evaluation ranks: in float32, where 1 - similarity is rounded and more are equal.
        distance = np.where(index == NOTHING, np.float32(np.inf), np.float32(1) - similarity)
        ended = (distance[:, -1] > distance[:, top_k - 1]) | np.isinf(distance[:, -1])
        if count == limit or ended.all():
            break
        count = min(2 * count, limit)
    order = np.lexsort((index, distance), axis=1)[:, :top_k]
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(index, order, 1)
