"""Galleries on this computer: features in memory, searched exactly, or a FAISS index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.progress import progress
from ms_vireid.data.layout import UNKNOWN
from ms_vireid.evaluation.reranking import rerank
from ms_vireid.inference.feature_files import Features
from ms_vireid.search.found import NOTHING, Entry, Found, Hit, hits_of

if TYPE_CHECKING:
    from ms_vireid.search.faiss_index import FaissIndex

_QUERIES = 1 << 10  # most at a time: the gallery is read once for as many
_SIMILARITIES = 1 << 22  # at a time: 16 MiB


@dataclass(frozen=True, eq=False)
class LocalGallery:
    """The pictures of `content`, searched by `index`, or exactly by its features where there is none."""

    name: str
    content: Features
    index: "FaissIndex | None" = None

    def __len__(self) -> int:
        return len(self.content)

    def search(
        self, queries: Features, top_k: int, cameras: Sequence[int] | None = None, breadth: int | None = None
    ) -> list[list[Hit]]:
        """The nearest of each query, among the pictures of some cameras or all; equals come in the gallery's order.
        Raises InputError for features of another width or checkpoint than the queries', or if no camera is there.

        breadth: see FaissIndex.search.
        """
        check_same_model(queries, self.content, self.name)
        allowed = None if cameras is None else self._of_cameras(cameras)
        if self.index is None:
            similarity, index = search_exact(queries.features, self.content.features, top_k, allowed)
        else:
            similarity, index = self.index.search(queries.features, top_k, allowed, breadth)
        entries = {i: entry(self.content, i) for i in np.unique(index[index != NOTHING]).tolist()}
        return hits_of(entries, similarity, index)

    def search_reranked(self, queries: Features, top_k: int) -> list[list[Hit]]:
        """The nearest of each query after re-ranking (`evaluation.reranking`) with all queries and the whole gallery;
        similarities are as without it. Raises InputError for features of another width or checkpoint than the queries',
        and if the memory does not suffice."""
        check_same_model(queries, self.content, self.name)
        order = np.argsort(rerank(queries.features, self.content.features), axis=1, kind="stable")[:, :top_k]
        similarity = np.take_along_axis(queries.features @ self.content.features.T, order, axis=1)
        return hits_of([entry(self.content, i) for i in range(len(self))], similarity, order)

    def _of_cameras(self, cameras: Sequence[int]) -> np.ndarray:
        """bool [N]"""
        known = set(self.content.cameras.tolist()) - {UNKNOWN}
        if not known & set(cameras):
            has = f"has cameras {', '.join(map(str, sorted(known)))}" if known else "knows no camera"
            raise InputError(f"--camera {' '.join(map(str, cameras))}: {self.name} {has}")
        return np.isin(self.content.cameras, sorted(known & set(cameras)))


def entry(features: Features, row: int) -> Entry:
    path = features.paths[row].item()
    modality, camera, identity = (
        column[row].item() for column in (features.modality, features.cameras, features.identities)
    )
    return Entry.of(path, features.file(path), modality, camera, identity)


def found_by(queries: Features, hits: list[list[Hit]]) -> list[Found]:
    """Each query with its hits."""
    return [Found(entry(queries, row), row_hits) for row, row_hits in enumerate(hits)]


def check_same_model(queries: Features, gallery: Features, name: str) -> None:
    """Raise InputError unless both are features of the same checkpoint, and so can be compared."""
    widths = queries.features.shape[1], gallery.features.shape[1]
    if widths[0] != widths[1]:
        raise InputError(f"{name}: features of {widths[1]} dimensions, the queries' have {widths[0]}; extract again")
    checkpoints = [features.info["checkpoint"]["sha256"] for features in (queries, gallery)]
    if checkpoints[0] != checkpoints[1]:
        ours, theirs = (checkpoint[:12] for checkpoint in checkpoints)
        raise InputError(f"{name}: features of another checkpoint ({theirs}) than the queries' ({ours}); extract again")


def search_exact(
    queries: np.ndarray, gallery: np.ndarray, top_k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `top_k` nearest in the order of `evaluate_ranking`: by distance, 1 - inner product in float32, and equals by
    their index.

    queries: float32 [Q, C]. gallery: float32 [G, C], L2-normalised as they are. allowed: bool [G], where to search.

    Works in blocks of queries and gallery: beside its arguments and what it returns it takes some 50 MiB, and 0.3 GiB
    where each picture is nearer than all before it.

    Returns similarities float32 [Q, k] and indices int64 [Q, k], k = min(top_k, G); NOTHING where fewer are allowed.
    """
    top_k = min(top_k, len(gallery))
    distance = np.full((len(queries), top_k), np.inf, np.float32)
    index = np.full((len(queries), top_k), NOTHING)
    count = max(1, min(len(queries), _QUERIES, _SIMILARITIES // top_k))
    rows = max(top_k, _SIMILARITIES // count)
    blocks = [(q, first) for q in range(0, len(queries), count) for first in range(0, len(gallery), rows)]
    for q, first in progress(blocks, len(blocks), "search", " blocks"):
        own = slice(q, q + count)
        further = 1 - queries[own] @ gallery[first : first + rows].T
        if allowed is not None:
            further[:, ~allowed[first : first + rows]] = np.inf
        distance[own], index[own] = _nearer(distance[own], index[own], further, first)
    return 1 - distance, index


def _nearer(distance: np.ndarray, index: np.ndarray, further: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of those found so far, [Q, k] in order, and of the block [Q, B] whose first column is `first`."""
    count, top_k = distance.shape
    limit = distance[:, -1:]  # an equal one comes later than what was found
    if further.shape[1] > top_k and np.isinf(limit).any():
        last = np.partition(further, top_k - 1, axis=1)[:, top_k - 1 : top_k]
        limit = np.minimum(limit, np.nextafter(last, np.float32(np.inf)))
    row, column = np.divmod(np.flatnonzero(further < limit), further.shape[1])
    rows = np.concatenate([np.repeat(np.arange(count), top_k), row])
    distances = np.concatenate([distance.ravel(), further[row, column]])
    indices = np.concatenate([index.ravel(), first + column])
    order = np.lexsort((distances, rows))  # stable: equals stay in the gallery's order
    nearest = order[np.searchsorted(rows[order], np.arange(count))[:, None] + np.arange(top_k)]
    return distances[nearest], indices[nearest]
