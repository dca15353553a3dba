"""Exact search by inner product, in blocks: of a gallery on disk one block is in memory."""

import numpy as np

from ms_vireid.data.features import RowsOnDisk
from ms_vireid.progress import progress
from ms_vireid.search.found import NOTHING

_BLOCK_FLOATS = 1 << 24  # of features, and of similarities: 64 MiB each


def search_exact(
    queries: np.ndarray, gallery: np.ndarray | RowsOnDisk, top_k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `top_k` nearest of a gallery in the order of `evaluate_ranking`: by distance, 1 - inner product in float32,
    and equals by their index.

    queries: float32 [Q, C]. gallery: float32 [G, C], L2-normalised as they are. allowed: bool [G], where to search.

    Returns similarities float32 [Q, k] and indices int64 [Q, k], k = min(top_k, G); NOTHING where fewer are allowed.
    """
    best = _Nearest(len(queries), min(top_k, len(gallery)))
    rows = max(1, _BLOCK_FLOATS // max(queries.shape))
    starts = range(0, len(gallery), rows)
    for start in progress(starts, len(starts), "search", " features", rows):
        columns = slice(None) if allowed is None else np.flatnonzero(allowed[start : start + rows])
        if allowed is not None and not len(columns):
            continue
        distance = queries @ gallery[start : start + rows].T
        np.subtract(1, distance, out=distance)
        numbers = np.arange(start, start + distance.shape[1])[columns]
        best.add(distance if allowed is None else distance[:, columns], numbers)
    return best.result()


class _Nearest:
    """The nearest so far, one entry a row of three columns: which query, how far, which gallery image."""

    def __init__(self, num_queries: int, top_k: int):
        self.num_queries, self.top_k = num_queries, top_k
        self.query, self.index = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.distance = np.zeros(0, np.float32)

    def add(self, distance: np.ndarray, numbers: np.ndarray) -> None:
        """distance: float32 [Q, n]. numbers: int64 [n], the indices of its columns."""
        worst = np.full(self.num_queries, np.inf, np.float32)
        counts = np.bincount(self.query, minlength=self.num_queries)
        full = counts == self.top_k
        worst[full] = self.distance[np.cumsum(counts)[full] - 1]
        closer = distance < worst[:, None]  # an equal of a larger index comes later
        if np.count_nonzero(closer) > 4 * self.num_queries * self.top_k:
            last = min(self.top_k, distance.shape[1]) - 1
            closer &= distance <= np.partition(distance, last, axis=1)[:, last, None]
        query, column = np.nonzero(closer)
        self._keep(
            np.concatenate([self.query, query]),
            np.concatenate([self.distance, distance[query, column]]),
            np.concatenate([self.index, numbers[column]]),
        )

    def _keep(self, query: np.ndarray, distance: np.ndarray, index: np.ndarray) -> None:
        order = np.lexsort((index, distance, query))
        rank = _rank_within(query[order])
        order = order[rank < self.top_k]
        self.query, self.distance, self.index = query[order], distance[order], index[order]

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        similarity = np.full((self.num_queries, self.top_k), -np.inf, np.float32)
        index = np.full((self.num_queries, self.top_k), NOTHING)
        rank = _rank_within(self.query)
        similarity[self.query, rank] = 1 - self.distance
        index[self.query, rank] = self.index
        return similarity, index


def _rank_within(query: np.ndarray) -> np.ndarray:
    """Of ascending numbers, how many of the same come before each."""
    return np.arange(len(query)) - np.searchsorted(query, query)
