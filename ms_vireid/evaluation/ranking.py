"""CMC, mAP and mINP of a distance matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

PROTOCOLS = ("sysu_mm01", "regdb", "llcm")
REPORTED_RANKS = (1, 5, 10, 20)

_BLOCK = 1 << 17  # distances ranked at a time, at most
_MIN_BLOCKS = 32  # that a matrix is divided into


@dataclass(frozen=True, eq=False)
class RankingResult:
    """Means over the queries that have a match, as fractions in 0..1."""

    cmc: np.ndarray  # float64 [max_rank]: cmc[k-1] is the fraction of queries found within rank k
    mean_ap: float  # mean average precision
    mean_inp: float  # mean inverse negative penalty
    num_valid_queries: int  # with at least one match that is not ignored
    at_threshold: Mapping[str, float] = field(default_factory=dict)  # of `threshold_metrics`, if they have been added

    def metrics(self) -> dict[str, float]:
        """Return rank1, rank5, rank10, rank20 (as far as `cmc` goes), map, minp, and those at a threshold, as fractions
        in 0..1."""
        ranks = {f"rank{k}": float(self.cmc[k - 1]) for k in REPORTED_RANKS if k <= len(self.cmc)}
        return {**ranks, "map": self.mean_ap, "minp": self.mean_inp, **self.at_threshold}


@dataclass(frozen=True, eq=False)
class QueryGroup:
    """Queries with the same matches and the same ignored gallery images; all are ascending indices."""

    queries: np.ndarray
    matches: np.ndarray  # gallery images of the queries' identity that are not ignored
    ignored: np.ndarray  # gallery images that the camera rule excludes


def evaluate_ranking(
    distance: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None = None,
    gallery_cameras: np.ndarray | None = None,
    protocol: str = "sysu_mm01",
    max_rank: int = 20,
) -> RankingResult:
    """Rank the gallery for every query and average CMC, AP and INP.

    distance: float16, float32 or float64 [Q, G], smaller is closer; not modified. Ties rank in gallery order, as in a
    stable sort.
    query_ids, query_cameras: [Q]; gallery_ids, gallery_cameras: [G]. Whole numbers or texts, except SYSU-MM01's
    cameras, which are numbers. "regdb" ignores cameras.

    protocol "sysu_mm01": a query of camera 3 ignores every gallery image of camera 2, whatever its identity. The CMC
    counts distinct identities in ranking order: a query is found within rank k if its identity is among the first k
    identities to appear. AP and INP use all images that are not ignored.
    protocol "regdb": uses the whole gallery, and the CMC counts images: the position of the first match.
    protocol "llcm": a query ignores the gallery images of its own identity and camera; otherwise as "sysu_mm01".

    With the ranks r_1 < ... < r_P of a query's P matches, AP = mean over i of i / r_i, and INP = P / r_P (Ye et al.,
    "Deep learning for person re-identification: a survey and outlook", TPAMI 2021, section 4). A query without a
    match is left out of all means. Beyond the end of a short gallery the CMC stays at its last value.

    Works in blocks of rows: it needs less memory than a copy of the matrix, and a few MiB for a large one.
    Raises ValueError, in one line with the wrong value, for wrong arguments, a non-finite distance, and if no query has
    a match.
    """
    from ms_vireid.evaluation.counting import count_identities, count_ranks  # Numba takes 0.2 s, which --help can spare

    if max_rank < 1:
        raise ValueError(f"max_rank is {max_rank}: it must be at least 1")
    distance = _checked_distance(distance)
    num_queries, num_gallery = distance.shape
    query_ids, gallery_ids = columns_of("ids", query_ids, gallery_ids, distance.shape)
    labels = np.unique(gallery_ids, return_inverse=True)[1]

    first_rank = np.zeros(num_queries, np.int64)  # what the CMC counts; 0 where there is no match
    average_precision = np.zeros(num_queries)
    inverse_negative_penalty = np.zeros(num_queries)
    rows = max(1, min(_BLOCK, distance.size // _MIN_BLOCKS) // max(num_gallery, 1))
    for group in query_groups(query_ids, gallery_ids, query_cameras, gallery_cameras, protocol):
        num_matches = len(group.matches)
        for start in range(0, len(group.queries), rows):
            queries = group.queries[start : start + rows]
            block = distance[queries].astype(np.result_type(distance, np.float32), order="C", copy=False)
            block[:, group.ignored] = np.inf
            ranks = count_ranks(block, group.matches)
            first = group.matches[np.argmin(ranks, axis=1)]
            ranks.sort(axis=1)
            average_precision[queries] = np.mean(np.arange(1, num_matches + 1) / ranks, axis=1)
            inverse_negative_penalty[queries] = num_matches / ranks[:, -1]
            first_rank[queries] = ranks[:, 0] if protocol == "regdb" else count_identities(block, first, labels)

    valid = first_rank > 0
    num_valid = int(np.count_nonzero(valid))
    found_at = np.bincount(np.minimum(first_rank[valid], max_rank + 1), minlength=max_rank + 2)[1:-1]
    return RankingResult(
        cmc=np.cumsum(found_at) / num_valid,
        mean_ap=float(np.mean(average_precision[valid])),
        mean_inp=float(np.mean(inverse_negative_penalty[valid])),
        num_valid_queries=num_valid,
    )


def query_groups(
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None,
    gallery_cameras: np.ndarray | None,
    protocol: str,
    unmatched: bool = False,
) -> list[QueryGroup]:
    """Group the queries that have a match, and with `unmatched` the others too, by what they match and ignore. ids: as
    `columns_of` returns them. Raises ValueError as evaluate_ranking for other arguments."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    shape = len(query_ids), len(gallery_ids)
    if protocol == "regdb":  # no query ignores anything
        query_places, gallery_places = np.zeros(shape[0]), np.ones(shape[1])
    elif protocol == "sysu_mm01":  # place 1 has cameras 3 (infrared) and 2 (visible); no others share a place
        cameras = columns_of("cameras", query_cameras, gallery_cameras, shape)
        if cameras[0].dtype.kind == "U":
            raise ValueError("cameras are strings, but SYSU-MM01's rule names cameras 2 and 3; give numbers")
        query_places, gallery_places = np.where(cameras[0] == 3, 1, 0), np.where(cameras[1] == 2, 1, -1)
    else:
        query_places, gallery_places = columns_of("cameras", query_cameras, gallery_cameras, shape)
    order = np.lexsort((query_places, query_ids))
    ids, places = query_ids[order], query_places[order]
    new_group = (ids[1:] != ids[:-1]) | (places[1:] != places[:-1])
    groups = []
    for queries in np.split(order, np.flatnonzero(new_group) + 1) if len(order) else []:
        same_identity = gallery_ids == query_ids[queries[0]]
        ignored = gallery_places == query_places[queries[0]]
        if protocol == "llcm":
            ignored &= same_identity
        if unmatched or (same_identity & ~ignored).any():
            groups.append(QueryGroup(queries, np.flatnonzero(same_identity & ~ignored), np.flatnonzero(ignored)))
    if not groups:
        size = len(gallery_ids)
        raise ValueError(f"none of the {len(query_ids)} queries has a match in its gallery of {size} images")
    return groups


def _checked_distance(distance: np.ndarray) -> np.ndarray:
    distance = np.asarray(distance)
    if distance.ndim != 2:
        raise ValueError(f"distance has shape {distance.shape}: it must be [queries, gallery]")
    if distance.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"distance is {distance.dtype}: it must be float16, float32 or float64")
    # Minimum and maximum are non-finite if anything is, and need no mask of the matrix's size.
    if distance.size and not (np.isfinite(distance.min()) and np.isfinite(distance.max())):
        query, image = np.argwhere(~np.isfinite(distance))[0]
        raise ValueError(f"distance[{query}, {image}] is {distance[query, image]}: every distance must be finite")
    return distance


def columns_of(what: str, query: object, gallery: object, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of the queries, [Q], and one of the gallery, [G], both of whole numbers or both of texts; raises
    ValueError for any other. what: "ids" or "cameras". shape: (Q, G)."""
    columns = []
    for name, values, length in zip((f"query_{what}", f"gallery_{what}"), (query, gallery), shape, strict=True):
        if values is None:
            raise ValueError(f"{name} is None: this protocol needs the {what} of queries and gallery")
        column = np.asarray(values)
        if column.shape != (length,):
            raise ValueError(f"{name} has shape {column.shape}: it must be ({length},), as the distance matrix is")
        # NumPy makes texts of the numbers and gaps in a list that has both.
        is_mixed = column.dtype.kind == "U" and not all(isinstance(value, str) for value in values)
        if np.ma.is_masked(values) or is_mixed or (length and column.dtype.kind not in "biuU"):
            raise ValueError(f"{name} must hold only whole numbers or only strings: use .astype(int) or .astype(str)")
        columns.append(column)
    types = [column.dtype for column in columns if len(column)]
    if len({kind.kind == "U" for kind in types}) == 2 or (types and np.result_type(*types).kind == "f"):
        raise ValueError(f"query_{what} and gallery_{what} are {types[0]} and {types[1]}: give both of one type")
    return columns[0], columns[1]


def mean_and_deviation(metrics: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return each metric's mean and population standard deviation over trials or runs, those that have it."""
    names = dict.fromkeys(name for one in metrics for name in one)
    columns = {name: [one[name] for one in metrics if name in one] for name in names}
    return tuple({name: float(f(values)) for name, values in columns.items()} for f in (np.mean, np.std))


def first_fault(features: np.ndarray) -> tuple[int, str] | None:
    """Find the first row of float32 [N, C] that is not L2-normalised (also one that is zero or not finite). Returns its
    index and its norm in words, or None."""
    norms = np.sqrt(np.einsum("nc,nc->n", features, features))
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= 1e-3))  # NaN too; float16's rounding is within
    return (int(wrong[0]), f"has norm {norms[wrong[0]]:.4g} instead of 1") if len(wrong) else None
