"""Galleries in memory: features, searched exactly, or a FAISS index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.progress import progress
from ms_vireid.data.folder_layout import UNKNOWN
from ms_vireid.evaluation.reranking import rerank
from ms_vireid.inference.feature_files import Features
from ms_vireid.search.result import NOTHING, Entry, Hit, SearchResult, hits_of

if TYPE_CHECKING:
    from ms_vireid.search.faiss_index import FaissIndex

_QUERIES = 1 << 10  # a block: the gallery is read once for each
_SIMILARITIES = 1 << 22  # a block: 16 MiB


@dataclass(frozen=True, eq=False)
class LocalGallery:
    """The pictures of `content`, searched by `index`, or without one exactly, by their features."""

    name: str
    content: Features
    index: "FaissIndex | None" = None

    def __len__(self) -> int:
        return len(self.content)

    @property
    def limit(self) -> int:
        """The most pictures that a search finds."""
        return len(self)

    def search(
        self, queries: Features, top_k: int, cameras: Sequence[int] | None = None, breadth: int | None = None
    ) -> list[list[Hit]]:
        """Find the `top_k` nearest pictures of these cameras (None: all) for each query; ties keep the gallery's order.
        Raises InputError if the queries' features have another width or checkpoint, or no picture is of these cameras.

        breadth: see FaissIndex.search.
        """
        self._check_same_model(queries)
        allowed = None if cameras is None else self._of_cameras(cameras)
        if self.index is None:
            similarity, index = search_exact(queries.features, self.content.features, top_k, allowed)
        else:
            similarity, index = self.index.search(queries.features, top_k, allowed, breadth)
        entries = {i: entry(self.content, i) for i in np.unique(index[index != NOTHING]).tolist()}
        return hits_of(entries, similarity, index)

    def search_reranked(self, queries: Features, top_k: int) -> list[list[Hit]]:
        """Find the nearest pictures after re-ranking (`evaluation.reranking`) all queries with the whole gallery; hits
        show the plain similarity. Raises InputError as `search` does, and if memory does not suffice."""
        self._check_same_model(queries)
        order = np.argsort(rerank(queries.features, self.content.features), axis=1, kind="stable")[:, :top_k]
        similarity = np.take_along_axis(queries.features @ self.content.features.T, order, axis=1)
        return hits_of([entry(self.content, i) for i in range(len(self))], similarity, order)

    def _check_same_model(self, queries: Features) -> None:
        """Raise InputError unless queries and gallery are features of the same checkpoint, made in the same way, which
        can be compared."""
        widths = queries.features.shape[1], self.content.features.shape[1]
        if widths[0] != widths[1]:
            dimensions = f"features of {widths[1]} dimensions, the queries' have {widths[0]}"
            raise InputError(f"{self.name}: {dimensions}; extract again")
        ours, theirs = (features.info["checkpoint"]["sha256"] for features in (queries, self.content))
        if ours != theirs:
            checkpoints = f"features of another checkpoint ({theirs[:12]}) than the queries' ({ours[:12]})"
            raise InputError(f"{self.name}: {checkpoints}; extract again")
        if queries.made_by != self.content.made_by:
            raise InputError(f"{self.name}: was made with another data.sixteen_bit than the queries; extract again")

    def _of_cameras(self, cameras: Sequence[int]) -> np.ndarray:
        """Mark the pictures of these cameras: bool [N]."""
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


def found_by(queries: Features, hits: list[list[Hit]]) -> list[SearchResult]:
    """Put each query beside its hits."""
    return [SearchResult(entry(queries, row), row_hits) for row, row_hits in enumerate(hits)]


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
