"""FAISS indexes of a gallery (flat, HNSW), stored in one file with the paths, cameras and identities of its pictures.

A `.index` file is an uncompressed zip: FAISS's own `index.faiss`, which holds the features, and the other columns of a
feature file (ms_vireid/inference/feature_files.py).
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
HNSW_M, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128
_ROWS_AT_ONCE = 1 << 14
_MEMBER = "index.faiss"
_MAKE = "make it with --save-index"


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """An index of one of KINDS over the rows of a gallery, by inner product."""

    index: faiss.Index
    kind: str

    def __len__(self) -> int:
        return self.index.ntotal

    def search(
        self, queries: np.ndarray, top_k: int, allowed: np.ndarray | None = None, breadth: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search_exact`; HNSW is approximate, and a larger `breadth` (efSearch) makes it slower and more accurate.

        With `allowed`, bool [G], both kinds search exactly: a graph's path to an allowed row may cross forbidden ones.
        """
        queries = np.ascontiguousarray(queries)

        def search(count: int) -> tuple[np.ndarray, np.ndarray]:
            index, parameters = self.index, None
            if allowed is not None:
                index, selected = _storage(index), faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
                parameters = faiss.SearchParameters(sel=selected)
            elif self.kind == "hnsw":
                parameters = faiss.SearchParametersHNSW(efSearch=max(breadth or EF_SEARCH, count))
            return index.search(queries, count, params=parameters)

        return nearest(search, top_k, len(self))


def build_index(kind: str, features: np.ndarray) -> FaissIndex:
    """Index features, float32 [G, C]. kind: one of KINDS."""
    count, width = features.shape
    if kind == "flat":
        index = faiss.IndexFlat(width, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexHNSWFlat(width, HNSW_M, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EF_CONSTRUCTION
    starts = range(0, count, _ROWS_AT_ONCE)
    for start in progress(starts, len(starts), f"{kind} index", " features", _ROWS_AT_ONCE):
        index.add(features[start : start + _ROWS_AT_ONCE])
    return FaissIndex(index, kind)


def save_index(path: Path, index: FaissIndex, gallery: Features) -> None:
    """Write an index and its gallery. Raises InputError as `atomic_write` does."""
    labelled = replace(gallery, info=gallery.info | {"index": index.kind})
    write_archive(path, labelled, **{_MEMBER: faiss.serialize_index(index.index)})


def load_index(path: Path) -> tuple[FaissIndex, Features]:
    """Read an index that `save_index` wrote, and its gallery, whose features stay in the index. Raises InputError for
    any other file, or a damaged one."""
    members = read_archive(path, "a saved index", _MAKE)  # which checks the CRCs: FAISS's own reader checks nothing
    try:
        index = faiss.deserialize_index(np.frombuffer(members[_MEMBER], np.uint8))
    except DAMAGED as error:
        raise InputError(f"{path}: is not a saved index ({error}); {_MAKE}") from None
    gallery = from_archive(path, members, np.zeros((0, index.d), np.float32))
    check_columns(path, gallery, index.ntotal)
    check_names(path, gallery)
    kind = gallery.info.get("index")
    known = kind in KINDS and isinstance(index, KINDS[kind]) and isinstance(_storage(index), faiss.IndexFlat)
    if not known or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise InputError(f"{path}: holds a {type(index).__name__}, not an index of {', '.join(KINDS)} by inner product")
    features = faiss.rev_swig_ptr(_storage(index).get_xb(), index.ntotal * index.d)  # not copied
    if fault := first_fault(features.reshape(index.ntotal, index.d)):
        row, problem = fault
        raise InputError(f"{path}: row {row} ({gallery.paths[row]}) {problem}; {_MAKE}")
    return FaissIndex(index, kind), gallery


def _storage(index: faiss.Index) -> faiss.Index:
    """The flat index that holds the features: a graph keeps one of its own."""
    return faiss.downcast_index(getattr(index, "storage", index))
