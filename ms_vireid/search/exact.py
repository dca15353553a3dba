"""Exact search by inner product, in blocks: of a gallery on disk one block is in memory."""

import numpy as np

from ms_vireid.command.progress import progress
from ms_vireid.inference.feature_files import RowsOnDisk
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
    top_k = min(top_k, len(gallery))
    nearest = np.full((len(queries), top_k), np.inf, np.float32)
    index = np.full((len(queries), top_k), NOTHING)
    rows = max(1, _BLOCK_FLOATS // max(queries.shape))
    starts = range(0, len(gallery), rows)
    for start in progress(starts, len(starts), "search", " features", rows):
        columns = slice(None) if allowed is None else np.flatnonzero(allowed[start : start + rows])
        if allowed is not None and not len(columns):
            continue
        distance = queries @ gallery[start : start + rows].T
        np.subtract(1, distance, out=distance)
        numbers = np.arange(start, start + distance.shape[1])[columns]
        nearest, index = _merged(nearest, index, distance if allowed is None else distance[:, columns], numbers)
    return 1 - nearest, index


def _merged(
    nearest: np.ndarray, index: np.ndarray, distance: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest so far, float32 and int64 [Q, k] in order, with those of a later block among them.

    distance: float32 [Q, n]. numbers: int64 [n], the indices of its columns.
    """
    top_k = nearest.shape[1]
    closer = distance < nearest[:, -1:]  # an equal of a larger index comes later
    if np.count_nonzero(closer) > 4 * nearest.size:  # the first blocks: a whole sort would take longer
        last = min(top_k, distance.shape[1]) - 1
        closer &= distance <= np.partition(distance, last, axis=1)[:, last, None]
    query, column = np.nonzero(closer)
    place = top_k + np.arange(len(query)) - np.searchsorted(query, query)  # behind the query's nearest
    added = (0, 0), (0, place.max(initial=top_k - 1) + 1 - top_k)
    nearest = np.pad(nearest, added, constant_values=np.inf)
    index = np.pad(index, added, constant_values=NOTHING)
    nearest[query, place] = distance[query, column]
    index[query, place] = numbers[column]
    order = np.argsort(nearest, axis=1, kind="stable")[:, :top_k]
    return np.take_along_axis(nearest, order, 1), np.take_along_axis(index, order, 1)
