"""FAISS indexes of a gallery (flat, HNSW), in one file with what is known of its pictures.

A `.index` file is an uncompressed zip of the bytes of FAISS's own `index.faiss`, and the columns of a feature file
(ms_vireid/inference/feature_files.py) but for the features, which the index holds.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.progress import progress
from ms_vireid.evaluation.features import first_fault
from ms_vireid.files.checks import DAMAGED
from ms_vireid.inference.feature_files import (
    Features,
    check_columns,
    check_names,
    from_archive,
    read_archive,
    write_archive,
)
from ms_vireid.search.found import nearest

KINDS = {"flat": faiss.IndexFlat, "hnsw": faiss.IndexHNSWFlat}
LINKS, BREADTH_OF_BUILDING, BREADTH = 32, 200, 128  # of HNSW: M, efConstruction, efSearch
_ROWS_AT_ONCE = 1 << 14
_MEMBER = "index.faiss"
_MAKE = "make it with --save-index"


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """One of KINDS over the rows of a gallery, by inner product."""

    index: faiss.Index
    kind: str

    def __len__(self) -> int:
        return self.index.ntotal

    def search(
        self, queries: np.ndarray, top_k: int, allowed: np.ndarray | None = None, breadth: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search_exact`; what HNSW finds is approximate, and the better the larger `breadth`.

        With `allowed`, bool [G], both kinds search exactly: a graph's way to the allowed would lead over the others.
        """
        index, selection = self.index, None
        if allowed is not None:
            selection = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")))
            index = _storage(index)

        def search(count: int) -> tuple[np.ndarray, np.ndarray]:
            parameters = selection
            if self.kind == "hnsw" and allowed is None:
                parameters = faiss.SearchParametersHNSW(efSearch=max(breadth or BREADTH, count))
            return index.search(np.ascontiguousarray(queries), count, params=parameters)

        return nearest(search, top_k, len(self))


def build_index(kind: str, features: np.ndarray) -> FaissIndex:
    """An index over float32 [G, C]."""
    count, width = features.shape
    if kind == "flat":
        index = faiss.IndexFlat(width, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BREADTH_OF_BUILDING
    starts = range(0, count, _ROWS_AT_ONCE)
    for start in progress(starts, len(starts), f"{kind} index", " features", _ROWS_AT_ONCE):
        index.add(features[start : start + _ROWS_AT_ONCE])
    return FaissIndex(index, kind)


def save_index(path: Path, index: FaissIndex, gallery: Features) -> None:
    """Raises InputError as `atomic_write` does."""
    content = replace(gallery, info=gallery.info | {"index": index.kind})
    write_archive(path, content, **{_MEMBER: faiss.serialize_index(index.index)})


def load_index(path: Path) -> tuple[FaissIndex, Features]:
    """An index that `save_index` wrote, and its gallery, without features. Raises InputError for another file, or one
    that is not whole."""
    held = read_archive(path, "a saved index", _MAKE)  # with its CRCs: FAISS's own reader trusts what it reads
    try:
        index = faiss.deserialize_index(np.frombuffer(held[_MEMBER], np.uint8))
    except DAMAGED as error:
        raise InputError(f"{path}: is not a saved index ({error}); {_MAKE}") from None
    content = from_archive(path, held, np.zeros((0, index.d), np.float32))
    check_columns(path, content, index.ntotal)
    check_names(path, content)
    kind = content.info.get("index")
    known = kind in KINDS and isinstance(index, KINDS[kind]) and isinstance(_storage(index), faiss.IndexFlat)
    if not known or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise InputError(f"{path}: holds a {type(index).__name__}, not an index of {', '.join(KINDS)} by inner product")
    if fault := first_fault(_vectors(index)):
        row, problem = fault
        raise InputError(f"{path}: row {row} ({content.paths[row]}) {problem}; {_MAKE}")
    return FaissIndex(index, kind), content


def _storage(index: faiss.Index) -> faiss.Index:
    """What holds an index's features: of a graph another one."""
    return faiss.downcast_index(getattr(index, "storage", index))


def _vectors(index: faiss.Index) -> np.ndarray:
    """What an index holds, float32 [G, C], not copied."""
    return faiss.rev_swig_ptr(_storage(index).get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
