"""FAISS indexes of a gallery (flat, HNSW), stored in one file with the paths, cameras and identities of its pictures.

A `.index` file is an uncompressed zip: FAISS's own `index.faiss`, which holds the features, and the other columns of a
feature file (ms_vireid/inference/feature_files.py). An HNSW index also holds `rows` and `members` of its `Graph`, and
in `info` its breadth and recall. An index from an earlier version does not, and every row in it is a node.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
from pydantic import BaseModel, Field, ValidationError

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
from ms_vireid.search.graph import Graph, build_graph, stored_features
from ms_vireid.search.result import NOTHING, RECALL, nearest

KINDS = {"flat": faiss.IndexFlat, "hnsw": faiss.IndexHNSWFlat}
_GROUPED = "hnsw of groups"  # in a file whose HNSW index has members: earlier versions do not know them
_ROWS_AT_ONCE = 1 << 14
_MEMBER = "index.faiss"
_MAKE = "make it with --save-index"


class _Measured(BaseModel):
    breadth: int = Field(ge=1, le=100_000)
    recall: float = Field(ge=0, le=1)


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """An index of one of KINDS over the rows of a gallery, by inner product. graph: of HNSW, around `index`."""

    index: faiss.Index
    kind: str
    graph: Graph | None = None

    def __len__(self) -> int:
        return self.index.ntotal

    def search(
        self, queries: np.ndarray, top_k: int, allowed: np.ndarray | None = None, breadth: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search_exact`; HNSW is approximate, and a larger `breadth` (efSearch) makes it slower and more accurate.

        With `allowed`, bool [G], both kinds search exactly: a graph's path to an allowed row may cross forbidden ones.
        """
        queries = np.ascontiguousarray(queries)
        if self.graph is not None and allowed is None:
            return self.graph.search(queries, top_k, breadth or self.graph.breadth)
        rows = np.arange(len(self)) if self.graph is None else self.graph.rows
        stored, parameters = _storage(self.index), None
        if allowed is not None:
            bits = np.packbits(allowed[rows], bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))

        def search(count: int) -> tuple[np.ndarray, np.ndarray]:
            similarity, place = stored.search(queries, count, params=parameters)
            return similarity, np.where(place == NOTHING, NOTHING, rows[place])

        return nearest(search, top_k, len(self))

    def note(self) -> str | None:
        """Say what to do where the graph finds less than is promised, or nobody knows."""
        exact = "make the index anew with --index flat, or search without one"
        if self.graph is None or (self.graph.recall or 0) >= RECALL:
            return None
        if self.graph.recall is None:
            return "this HNSW index is an earlier version's, and its recall was not measured; make it anew"
        found = f"{100 * self.graph.recall:.1f} % of the nearest pictures in a sample, less than {100 * RECALL:.1f} %"
        return f"hnsw finds {found}, at breadth {self.graph.breadth}; {exact}; or give a larger --breadth"


def build_index(kind: str, features: np.ndarray) -> FaissIndex:
    """Index features, float32 [G, C]. kind: one of KINDS."""
    if kind == "hnsw":
        graph = build_graph(features)
        return FaissIndex(graph.index, kind, graph)
    count, width = features.shape
    index = faiss.IndexFlat(width, faiss.METRIC_INNER_PRODUCT)
    starts = range(0, count, _ROWS_AT_ONCE)
    for start in progress(starts, len(starts), f"{kind} index", " features", _ROWS_AT_ONCE):
        index.add(features[start : start + _ROWS_AT_ONCE])
    return FaissIndex(index, kind)


def save_index(path: Path, index: FaissIndex, gallery: Features) -> None:
    """Write an index and its gallery. Raises InputError as `atomic_write` does."""
    info, arrays, graph = gallery.info | {"index": index.kind}, {}, index.graph
    if graph is not None and graph.recall is not None:
        info |= {"index": _GROUPED, "hnsw": {"breadth": graph.breadth, "recall": graph.recall}}
        arrays = {"rows": graph.rows, "members": graph.members}
    write_archive(path, replace(gallery, info=info), **{_MEMBER: faiss.serialize_index(index.index)}, **arrays)


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
    said = gallery.info.get("index")
    kind = "hnsw" if said == _GROUPED else said
    known = kind in KINDS and isinstance(index, KINDS[kind]) and isinstance(_storage(index), faiss.IndexFlat)
    if not known or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise InputError(f"{path}: holds a {type(index).__name__}, not an index of {', '.join(KINDS)} by inner product")
    graph = None
    if said == _GROUPED:
        graph = _graph(path, index, members, gallery.info)
    elif kind == "hnsw":
        graph = Graph.of_nodes(index)
    if fault := first_fault(stored_features(index)):
        place, problem = fault
        row = place if graph is None else graph.rows[place]
        raise InputError(f"{path}: row {row} ({gallery.paths[row]}) {problem}; {_MAKE}")
    return FaissIndex(index, kind, graph), gallery


def _graph(path: Path, index: faiss.IndexHNSWFlat, arrays: Mapping[str, np.ndarray], info: dict) -> Graph:
    """Check what an index file says of its graph."""
    rows, members = arrays.get("rows"), arrays.get("members")
    count = index.ntotal
    whole = (isinstance(one, np.ndarray) and one.dtype == np.int64 and one.ndim == 1 for one in (rows, members))
    fits = all(whole) and np.array_equal(np.sort(rows), np.arange(count)) and 2 <= len(members) <= count + 1
    if not fits or members[0] != len(members) - 1 or members[-1] != count or (np.diff(members) < 0).any():
        raise InputError(f"{path}: its rows and members do not fit its {count} features; {_MAKE}")
    try:
        measured = _Measured.model_validate(info.get("hnsw"))
    except ValidationError:
        raise InputError(f"{path}: its info lacks the breadth and recall of its index; {_MAKE}") from None
    return Graph(index, rows, members, measured.breadth, measured.recall)


def _storage(index: faiss.Index) -> faiss.Index:
    """The flat index that holds the features: a graph keeps one of its own."""
    return faiss.downcast_index(getattr(index, "storage", index))
