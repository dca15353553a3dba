"""Galleries in memory: features, searched exactly, or a FAISS index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.data.folder_layout import UNKNOWN
from ms_vireid.evaluation.reranking import rerank
from ms_vireid.search.exact import search_exact
from ms_vireid.search.feature_files import Features
from ms_vireid.search.result import NOTHING, Entry, Hit, SearchResult, hits_of

if TYPE_CHECKING:
    from ms_vireid.search.faiss_index import FaissIndex  # needs FAISS, which is optional


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
        self.check_same_model(queries)
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
        self.check_same_model(queries)
        order = np.argsort(rerank(queries.features, self.content.features), axis=1, kind="stable")[:, :top_k]
        similarity = np.take_along_axis(queries.features @ self.content.features.T, order, axis=1)
        return hits_of([entry(self.content, i) for i in range(len(self))], similarity, order)

    def check_same_model(self, queries: Features) -> None:
        """Raise InputError unless queries and gallery are features of the same checkpoint, made in the same way, which
        can be compared."""
        widths = queries.features.shape[1], self.content.features.shape[1]
        if widths[0] != widths[1]:
            dimensions = f"its features have {widths[1]} dimensions, the queries' {widths[0]}"
            raise InputError(f"{self.name}: {dimensions}; extract again")
        if queries.made_by != self.content.made_by:
            other = "come from another checkpoint or data.sixteen_bit than the queries'"
            raise InputError(f"{self.name}: features {other}; extract again")

    def _of_cameras(self, cameras: Sequence[int]) -> np.ndarray:
        """Mark the pictures of these cameras: bool [N]."""
        known = set(self.content.cameras.tolist()) - {UNKNOWN}
        if not known & set(cameras):
            has = f"has cameras {', '.join(map(str, sorted(known)))}" if known else "has no cameras"
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
