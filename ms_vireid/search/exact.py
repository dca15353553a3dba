"""Exact search by inner product, some queries at a time."""

import numpy as np

from ms_vireid.command.progress import progress
from ms_vireid.search.found import NOTHING

_SIMILARITIES = 1 << 24  # at a time: 64 MiB


def search_exact(
    queries: np.ndarray, gallery: np.ndarray, top_k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `top_k` nearest of a gallery in the order of `evaluate_ranking`: by distance, 1 - inner product in float32,
    and equals by their index.

    queries: float32 [Q, C]. gallery: float32 [G, C], L2-normalised as they are. allowed: bool [G], where to search.

    Returns similarities float32 [Q, k] and indices int64 [Q, k], k = min(top_k, G); NOTHING where fewer are allowed.
    """
    top_k = min(top_k, len(gallery))
    similarity = np.full((len(queries), top_k), -np.inf, np.float32)
    index = np.full((len(queries), top_k), NOTHING)
    rows = max(1, _SIMILARITIES // len(gallery))
    starts = range(0, len(queries), rows)
    for start in progress(starts, len(starts), "search", " queries", rows):
        distance = 1 - queries[start : start + rows] @ gallery.T
        if allowed is not None:
            distance[:, ~allowed] = np.inf
        last = np.partition(distance, top_k - 1, axis=1)[:, top_k - 1]
        for query, (own, limit) in enumerate(zip(distance, last, strict=True), start):
            near = np.flatnonzero((own <= limit) & (own < np.inf))  # in order of index, with all equals of the last one
            near = near[np.argsort(own[near], kind="stable")][:top_k]
            similarity[query, : len(near)], index[query, : len(near)] = 1 - own[near], near
    return similarity, index
