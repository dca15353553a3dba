"""Re-ranking by k-reciprocal encoding (Zhong, Zheng, Cao, Li; CVPR 2017). Not in the tables of PMT or MUN."""

import numpy as np
from scipy.sparse import csr_array

from ms_vireid.devices.compiling import njit
from ms_vireid.devices.memory import require_memory

K1, K2, WEIGHT = 20, 6, 0.3  # as published: neighbours, of the query expansion, of the original distance
_ROWS = 1 << 10  # of the matrix of distances, at a time


def rerank(queries: np.ndarray, gallery: np.ndarray, k1: int = K1, k2: int = K2, weight: float = WEIGHT) -> np.ndarray:
    """Distances after re-ranking, float32 [Q, G].

    queries: float32 [Q, C]. gallery: float32 [G, C], L2-normalised as they are. The original distance d is
    1 - inner product. All Q + G pictures are each other's neighbours: N(p, k) holds p itself and the k nearest others.

    Eq. 2: R(p, k) = those of N(p, k) that have p in theirs. Eq. 3: R*(p) adds to R(p, k1) each R(q, k1 / 2) of its
    members q of which two thirds are in R(p, k1). Eq. 7: V(p, g) = exp(-d(p, g)) in R*(p), else 0. Eq. 11: V(p) becomes
    the mean of V over p and its k2 - 1 nearest. Eq. 10: the Jaccard distance is 1 - sum min(V) / sum max(V). Eq. 12:
    (1 - weight) of it, and weight of d.

    Raises InputError if the memory does not suffice: 20 bytes for each pair of a query and a gallery picture.
    """
    joint, count = np.concatenate([queries, gallery]), len(queries) + len(gallery)
    size = 20 * len(queries) * len(gallery) + 12 * _ROWS * count
    require_memory(size, "re-ranking", "search fewer pictures, or leave --rerank out")
    k1 = min(k1, count - 1)
    nearest = np.concatenate([np.argsort(d, axis=1, kind="stable")[:, : k1 + 1] for _, d in _distances(joint)])
    reciprocal, half = (_reciprocal(nearest[:, : k + 1]) for k in (k1, round(k1 / 2)))
    shared = (reciprocal * (reciprocal @ half.T)).tocsr()  # how many of R(q, k1 / 2) are in R(p, k1), of q in R(p, k1)
    shared.data = (3 * shared.data >= 2 * np.diff(half.indptr)[shared.indices]).astype(np.float32)
    expanded = (reciprocal + shared @ half).tocsr()
    expanded.eliminate_zeros()
    for start, distance in _distances(joint):
        first, last = expanded.indptr[start], expanded.indptr[start + len(distance)]
        rows = np.repeat(np.arange(len(distance)), np.diff(expanded.indptr[start : start + len(distance) + 1]))
        own = np.maximum(distance[rows, expanded.indices[first:last]], 0)  # itself is marked by -1
        expanded.data[first:last] = np.exp(-own)
    encoded = (_indicator(nearest[:, :k2]) @ expanded).tocsr() / min(k2, k1 + 1)
    smallest = np.empty((len(queries), len(gallery)), np.float32)
    _shared_weight(encoded.indptr, encoded.indices, encoded.data.astype(np.float32), smallest)
    sums = encoded.sum(axis=1)
    largest = sums[: len(queries), None] + sums[None, len(queries) :] - smallest
    return ((1 - weight) * (1 - smallest / largest) + weight * (1 - queries @ gallery.T)).astype(np.float32)


def _distances(joint: np.ndarray):
    """The first row of each block and its distances, float32 [rows, N], each picture's to itself -1: it comes first."""
    for start in range(0, len(joint), _ROWS):
        distance = 1 - joint[start : start + _ROWS] @ joint.T
        own = np.arange(len(distance))
        distance[own, start + own] = -1
        yield start, distance


def _indicator(members: np.ndarray) -> csr_array:
    """1 where a column is among a row's `members`, int [N, k]."""
    count, width = members.shape
    ones = np.ones(members.size, np.float32)
    return csr_array((ones, members.ravel(), np.arange(0, members.size + 1, width)), shape=(count, count))


def _reciprocal(members: np.ndarray) -> csr_array:
    near = _indicator(members)
    return (near * near.T).tocsr()


@njit
def _shared_weight(starts, columns, weights, out):
    """The sum of the smaller weights of each query, the first rows, and each gallery picture, the others."""
    queries, gallery = out.shape
    own = np.zeros(len(starts) - 1, np.float32)
    for q in range(queries):
        for i in range(starts[q], starts[q + 1]):
            own[columns[i]] = weights[i]
        for g in range(gallery):
            total = np.float32(0)
            for i in range(starts[queries + g], starts[queries + g + 1]):
                total += min(own[columns[i]], weights[i])
            out[q, g] = total
        for i in range(starts[q], starts[q + 1]):
            own[columns[i]] = 0
