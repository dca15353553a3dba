"""Exact search by inner product, in blocks."""

import numpy as np

from ms_vireid.command.printing import progress
from ms_vireid.search.result import NOTHING

_QUERIES = 1 << 10  # a block: the gallery is read once for each
_SIMILARITIES = 1 << 22  # a block: 16 MiB


def search_exact(
    queries: np.ndarray, gallery: np.ndarray, top_k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `top_k` nearest in the order of `evaluate_ranking`: by distance, 1 - inner product in float32, ties by index.

    queries: float32 [Q, C]. gallery: float32 [G, C], both L2-normalised. allowed: bool [G], rows to search; None: all.

    Works in blocks of queries and gallery rows: its temporaries take about 50 MiB, and 0.3 GiB if each picture is
    nearer than all before it.

    Returns similarities float32 [Q, k] and indices int64 [Q, k], k = min(top_k, G); NOTHING where fewer are allowed.
    """
    top_k = min(top_k, len(gallery))
    distance = np.full((len(queries), top_k), np.inf, np.float32)
    index = np.full((len(queries), top_k), NOTHING)
    count = max(1, min(len(queries), _QUERIES, _SIMILARITIES // top_k))
    rows = max(top_k, _SIMILARITIES // count)
    blocks = [(q, first) for q in range(0, len(queries), count) for first in range(0, len(gallery), rows)]
    for q, first in progress(blocks, len(blocks), "search", " blocks"):
        block = slice(q, q + count)
        candidates = 1 - queries[block] @ gallery[first : first + rows].T
        if allowed is not None:
            candidates[:, ~allowed[first : first + rows]] = np.inf
        distance[block], index[block] = _merge(distance[block], index[block], candidates, first)
    return 1 - distance, index


def _merge(
    distance: np.ndarray, index: np.ndarray, candidates: np.ndarray, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """Merge the k nearest so far, [Q, k] in order, with a block of distances [Q, B]. first: the block's first index."""
    count, top_k = distance.shape
    limit = distance[:, -1:]  # exclusive: a tie comes after the earlier rows
    if candidates.shape[1] > top_k and np.isinf(limit).any():
        last = np.partition(candidates, top_k - 1, axis=1)[:, top_k - 1 : top_k]
        limit = np.minimum(limit, np.nextafter(last, np.float32(np.inf)))
    row, column = np.divmod(np.flatnonzero(candidates < limit), candidates.shape[1])
    rows = np.concatenate([np.repeat(np.arange(count), top_k), row])
    distances = np.concatenate([distance.ravel(), candidates[row, column]])
    indices = np.concatenate([index.ravel(), first + column])
    order = np.lexsort((distances, rows))  # stable: ties keep the gallery's order
    nearest = order[np.searchsorted(rows[order], np.arange(count))[:, None] + np.arange(top_k)]
    return distances[nearest], indices[nearest]
