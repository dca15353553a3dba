"""Re-ranking by k-reciprocal encoding (Zhong, Zheng, Cao, Li; CVPR 2017). Not in the tables of PMT or MUN."""

import numpy as np
from scipy.sparse import csr_array

from ms_vireid.command.memory import require_memory
from ms_vireid.files.kernel_cache import njit

K1, K2, WEIGHT = 20, 6, 0.3  # as published: neighbours, neighbours for query expansion, weight of the original distance
_ROWS = 1 << 10  # of the distance matrix, at a time


def rerank(queries: np.ndarray, gallery: np.ndarray, k1: int = K1, k2: int = K2, weight: float = WEIGHT) -> np.ndarray:
    """Return re-ranked distances, float32 [Q, G].

    queries: float32 [Q, C], gallery: float32 [G, C], both L2-normalised. The original distance d is 1 - inner product.
    Neighbours are taken among all Q + G pictures: N(p, k) contains p itself and the k nearest others.

    Eq. 2: R(p, k) = {q in N(p, k) : p in N(q, k)}. Eq. 3: R*(p) is R(p, k1) with each R(q, k1 / 2) of a member q added,
    if two thirds of it are in R(p, k1). Eq. 7: V(p, g) = exp(-d(p, g)) for g in R*(p), else 0. Eq. 11: V(p) becomes the
    mean of V over p and its k2 - 1 nearest. Eq. 10: the Jaccard distance is 1 - sum min(V) / sum max(V). Eq. 12:
    the result is (1 - weight) of that plus weight of d.

    Raises InputError if memory does not suffice: 20 bytes for each pair of a query and a gallery picture.
    """
    joint, count = np.concatenate([queries, gallery]), len(queries) + len(gallery)
    size = 20 * len(queries) * len(gallery) + 12 * _ROWS * count
    require_memory(size, "re-ranking", "search fewer pictures, or leave --rerank out")
    k1 = min(k1, count - 1)
    nearest = np.concatenate([np.argsort(d, axis=1, kind="stable")[:, : k1 + 1] for _, d in _distances(joint)])
    near = [_indicator(nearest[:, : k + 1]) for k in (k1, round(k1 / 2))]
    reciprocal, half = ((one * one.T).tocsr() for one in near)
    shared = (reciprocal * (reciprocal @ half.T)).tocsr()  # how many of R(q, k1 / 2) are in R(p, k1), of q in R(p, k1)
    shared.data = (3 * shared.data >= 2 * np.diff(half.indptr)[shared.indices]).astype(np.float32)
    expanded = (reciprocal + shared @ half).tocsr()
    expanded.eliminate_zeros()
    for start, distance in _distances(joint):
        first, last = expanded.indptr[start], expanded.indptr[start + len(distance)]
        rows = np.repeat(np.arange(len(distance)), np.diff(expanded.indptr[start : start + len(distance) + 1]))
        neighbours = np.maximum(distance[rows, expanded.indices[first:last]], 0)  # a picture to itself: -1
        expanded.data[first:last] = np.exp(-neighbours)
    encoded = (_indicator(nearest[:, :k2]) @ expanded).tocsr() / min(k2, k1 + 1)
    smallest = np.empty((len(queries), len(gallery)), np.float32)
    _shared_weight(encoded.indptr, encoded.indices, encoded.data.astype(np.float32), smallest)
    sums = encoded.sum(axis=1)
    largest = sums[: len(queries), None] + sums[None, len(queries) :] - smallest
    return ((1 - weight) * (1 - smallest / largest) + weight * (1 - queries @ gallery.T)).astype(np.float32)


def _distances(joint: np.ndarray):
    """Yield the first row of each block and its distances, float32 [rows, N]. A picture's distance to itself is -1, so
    that it comes first."""
    for start in range(0, len(joint), _ROWS):
        distance = 1 - joint[start : start + _ROWS] @ joint.T
        rows = np.arange(len(distance))
        distance[rows, start + rows] = -1
        yield start, distance


def _indicator(members: np.ndarray) -> csr_array:
    """Make a sparse [N, N] that is 1 where a column is among the row's `members`, int [N, k]."""
    count, width = members.shape
    ones = np.ones(members.size, np.float32)
    return csr_array((ones, members.ravel(), np.arange(0, members.size + 1, width)), shape=(count, count))


@njit()
def _shared_weight(starts, columns, weights, out):
    """Sum min(V) of each query (the first rows) and each gallery picture (the others) into `out`, [Q, G]."""
    queries, gallery = out.shape
    dense = np.zeros(len(starts) - 1, np.float32)  # the query's weights
    for q in range(queries):
        for i in range(starts[q], starts[q + 1]):
            dense[columns[i]] = weights[i]
        for g in range(gallery):
            total = np.float32(0)
            for i in range(starts[queries + g], starts[queries + g + 1]):
                total += min(dense[columns[i]], weights[i])
            out[q, g] = total
        for i in range(starts[q], starts[q + 1]):
            dense[columns[i]] = 0
