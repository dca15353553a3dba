"""Verification and open-set identification at a similarity threshold."""

from collections.abc import Iterator

import numpy as np

from ms_vireid.evaluation.ranking import columns_of, query_groups

STEPS = 1_000_000  # a chosen threshold is a multiple of 1 / STEPS, so that what is printed is all of it
_BLOCK = 1 << 17  # similarities at a time, at most, but at least those of a query


def threshold_metrics(
    similarity: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None,
    gallery_cameras: np.ndarray | None,
    protocol: str,
    threshold: float,
) -> dict[str, float]:
    """Measure a search that accepts similarities of at least `threshold`. Returns fractions in 0..1, without those that
    would divide by 0:

    recall: accepted pairs of a query and a gallery picture of the same person, of all such pairs (TAR).
    precision: accepted pairs of the same person, of all accepted pairs.
    fmr: accepted pairs of different people, of all such pairs: the false-match rate (FAR).
    dir: queries whose most similar picture is of their person and accepted, of those with a match: the detection and
    identification rate at rank 1. As similar a picture of somebody else is no identification.
    fpir: queries for which a picture of somebody else is accepted, of those that are compared with one: the
    false-positive identification rate, of people who are not in the gallery.

    similarity: float32 or float64 [Q, G], inner products of L2-normalised features; not modified. The rest is as for
    `evaluate_ranking`: its protocol says which pairs are ignored. Queries without a match count too.

    Works in blocks of rows, as `evaluate_ranking`. Raises ValueError for a similarity that is not finite, and for
    columns as `evaluate_ranking` does.
    """
    pairs, accepted = np.zeros(2, np.int64), np.zeros(2, np.int64)  # of the same person and of different people
    best = np.full((2, len(similarity)), -np.inf)
    for index, *blocks in _blocks(similarity, query_ids, gallery_ids, query_cameras, gallery_cameras, protocol):
        for kind, block in enumerate(blocks):
            pairs[kind] += block.size
            accepted[kind] += np.count_nonzero(block >= threshold)
            best[kind, index] = block.max(axis=1, initial=-np.inf)
    matched, challenged = ~np.isinf(best)
    identified = (best[0] >= threshold) & (best[0] > best[1])
    shares = {
        "recall": (accepted[0], pairs[0]),
        "precision": (accepted[0], accepted.sum()),
        "fmr": (accepted[1], pairs[1]),
        "dir": (identified.sum(), matched.sum()),
        "fpir": ((best[1] >= threshold).sum(), challenged.sum()),
    }
    return {name: float(part / whole) for name, (part, whole) in shares.items() if whole}


def count_impostors(
    similarity: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None,
    gallery_cameras: np.ndarray | None,
    protocol: str,
) -> np.ndarray:
    """Count the pairs of different people that each threshold -1, -1 + 1 / STEPS, ..., 1 accepts: int64
    [2 * STEPS + 1]. Arguments and errors are those of `threshold_metrics`."""
    counts = np.zeros(2 * STEPS + 1, np.int64)
    for _, _, block in _blocks(similarity, query_ids, gallery_ids, query_cameras, gallery_cameras, protocol):
        steps = np.floor(block * STEPS).astype(np.int64)  # exact: 24 and 14 bits of a float64's 53
        np.add.at(counts, np.clip(steps, -STEPS, STEPS).ravel() + STEPS, 1)
    return counts[::-1].cumsum()[::-1]


def _blocks(
    similarity: np.ndarray, *columns: np.ndarray | str | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield indices of some queries, int [n], and their similarities to pictures of the same person and of others,
    float64 [n, matches] and [n, others], without what is ignored. columns: the other arguments of `query_groups`."""
    query_ids, gallery_ids, *others = columns
    num_gallery = similarity.shape[1]
    rows = max(1, _BLOCK // max(num_gallery, 1))
    ids = columns_of("ids", query_ids, gallery_ids, similarity.shape)
    for group in query_groups(*ids, *others, unmatched=True):
        is_other = np.ones(num_gallery, bool)
        is_other[group.matches] = is_other[group.ignored] = False
        for start in range(0, len(group.queries), rows):
            index = group.queries[start : start + rows]
            block = similarity[index].astype(np.float64)
            if not np.isfinite(block).all():
                row, column = np.argwhere(~np.isfinite(block))[0]
                wrong = f"similarity[{index[row]}, {column}] is {block[row, column]}"
                raise ValueError(f"{wrong}: every similarity must be finite")
            yield index, block[:, group.matches], block[:, is_other]
