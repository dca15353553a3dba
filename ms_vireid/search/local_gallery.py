"""Galleries on this computer: features in memory or on disk, searched exactly or by a FAISS index."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.data.layout import UNKNOWN
from ms_vireid.inference.feature_files import Features
from ms_vireid.search.exact import search_exact
from ms_vireid.search.found import NOTHING, Hit, Picture, Wanted
from ms_vireid.search.picture_times import SOURCES, picture_times

if TYPE_CHECKING:
    from ms_vireid.search.faiss_index import FaissIndex


@dataclass(frozen=True, eq=False)
class LocalGallery:
    """The pictures of `content`, searched by `index`, or exactly by its features where there is none."""

    name: str
    content: Features
    index: "FaissIndex | None" = None

    def __len__(self) -> int:
        return len(self.content.paths)

    def search(self, queries: Features, top_k: int, wanted: Wanted, breadth: int | None = None) -> list[list[Hit]]:
        """The nearest of each query; equals come in the gallery's order.

        breadth: see FaissIndex.search.

        Raises:
            InputError: features of another width or checkpoint than the queries', or nothing is wanted.
        """
        check_same_model(queries, self.content, self.name)
        allowed = self._allowed(wanted) if wanted else None
        if self.index is None:
            similarity, index = search_exact(queries.features, self.content.features, top_k, allowed)
        else:
            similarity, index = self.index.search(queries.features, top_k, allowed, breadth)
        pictures = {i: picture(self.content, i) for i in np.unique(index[index != NOTHING]).tolist()}
        return [
            [Hit(pictures[i], s) for s, i in zip(*row, strict=True) if i != NOTHING]
            for row in zip(similarity.tolist(), index.tolist(), strict=True)
        ]

    def _allowed(self, wanted: Wanted) -> np.ndarray:
        """bool [N]"""
        allowed = np.ones(len(self), bool)
        if wanted.cameras is not None:
            known = set(self.content.cameras.tolist()) - {UNKNOWN}
            if not known & set(wanted.cameras):
                has = f"has cameras {', '.join(map(str, sorted(known)))}" if known else "knows no camera"
                raise InputError(f"--camera {' '.join(map(str, wanted.cameras))}: {self.name} {has}")
            allowed &= np.isin(self.content.cameras, wanted.cameras)
        if wanted.since is not None:
            rows = np.flatnonzero(allowed)
            times, sources = picture_times([self.content.file(self.content.paths[i]) for i in rows])
            print(f"times of pictures: {', '.join(f'{sources[source]} by {source}' for source in SOURCES)}")
            allowed[rows[~(times >= wanted.since)]] = False
        print(f"searched: {np.count_nonzero(allowed)} of {len(self)} pictures")
        return allowed


def picture(features: Features, row: int) -> Picture:
    path = features.paths[row].item()
    return Picture(
        path,
        features.file(path),
        features.modality[row].item(),
        int(features.cameras[row]),
        int(features.identities[row]),
    )


def check_same_model(queries: Features, gallery: Features, name: str) -> None:
    """Raise InputError unless both are features of the same checkpoint, and so can be compared."""
    widths = queries.features.shape[1], gallery.features.shape[1]
    if widths[0] != widths[1]:
        raise InputError(f"{name}: features of {widths[1]} dimensions, the queries' have {widths[0]}; extract again")
    checkpoints = [features.info["checkpoint"]["sha256"] for features in (queries, gallery)]
    if checkpoints[0] != checkpoints[1]:
        raise InputError(
            f"{name}: features of another checkpoint ({checkpoints[1][:12]}) than the queries' "
            f"({checkpoints[0][:12]}); extract one of them again"
        )
