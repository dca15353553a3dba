"""Finds ranks by counting smaller distances. Numba compiles this at the first call and caches it on disk."""

import numpy as np

from ms_vireid.files.kernel_cache import njit


@njit(nogil=True, cache=True)
def count_ranks(distance, matches):
    """Return the rank, from 1, of each match in each row of [R, G], int64 [R, matches].

    With more than about 2,000 matches, sorting the row would be faster.
    """
    ranks = np.empty((len(distance), len(matches)), np.int64)
    for row in range(len(distance)):
        for i in range(len(matches)):
            column = matches[i]
            match = distance[row, column]
            rank = 1
            earlier, later = distance[row, :column], distance[row, column:]  # vectorised: a fifth of one loop's time
            for j in range(len(earlier)):
                rank += earlier[j] <= match  # ties are broken by the lower index
            for j in range(len(later)):
                rank += later[j] < match
            ranks[row, i] = rank
    return ranks


@njit(nogil=True, cache=True)
def count_identities(distance, first, labels):
    """Rank the query's identity among identities, from 1, int64 [R]: count those with an image before the first match.
    first: column of the first match, [R]. labels: [G], dense."""
    ranks = np.ones(len(distance), np.int64)
    counted_in = np.zeros(len(labels), np.int64)  # by identity: the last row, from 1, where it was counted
    for row in range(len(distance)):
        match = distance[row, first[row]]
        for column in range(distance.shape[1]):
            before = distance[row, column] < match or (distance[row, column] == match and column < first[row])
            if before and counted_in[labels[column]] <= row:
                counted_in[labels[column]] = row + 1
                ranks[row] += 1
    return ranks
