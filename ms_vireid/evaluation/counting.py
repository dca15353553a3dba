"""Ranks by counting what comes before, compiled by Numba at the first call and kept on disk: `python
parity/benchmark.py --only ranking` times them beside NumPy's argsort."""

import numpy as np

from ms_vireid.devices.compiling import njit


@njit(nogil=True, cache=True)
def count_ranks(distance, matches):
    """The matches' ranks, from 1, in each row of [R, G], int64 [R, matches], in their order.

    Above some 2,000 matches sorting the row would cost less.
    """
    ranks = np.empty((len(distance), len(matches)), np.int64)
    for row in range(len(distance)):
        for i in range(len(matches)):
            column = matches[i]
            own = distance[row, column]
            rank = 1
            earlier, later = distance[row, :column], distance[row, column:]  # vectorised: a fifth of one loop's time
            for j in range(len(earlier)):
                rank += earlier[j] <= own  # equal ones of a lower index come before
            for j in range(len(later)):
                rank += later[j] < own
            ranks[row, i] = rank
    return ranks


@njit(nogil=True, cache=True)
def count_identities(distance, first, labels):
    """Place of the query's identity, int64 [R]: one more than the identities with an image before the first match.
    first: its column, [R]. labels: [G], dense."""
    places = np.ones(len(distance), np.int64)
    seen_by = np.zeros(len(labels), np.int64)  # the last row, from 1, that has counted an identity
    for row in range(len(distance)):
        own = distance[row, first[row]]
        for column in range(distance.shape[1]):
            before = distance[row, column] < own or (distance[row, column] == own and column < first[row])
            if before and seen_by[labels[column]] <= row:
                seen_by[labels[column]] = row + 1
                places[row] += 1
    return places
