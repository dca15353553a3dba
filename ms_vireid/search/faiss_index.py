"""FAISS indexes of a gallery (flat, ivf), stored in one file with the paths, cameras and identities of its pictures.

A `.index` file is an uncompressed zip: FAISS's own `index.faiss`, which holds the features, and the other columns of a
feature file (ms_vireid/search/feature_files.py).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from ms_vireid.command.errors import InputError, shown
from ms_vireid.command.printing import progress
from ms_vireid.evaluation.ranking import first_fault
from ms_vireid.files.checks import DAMAGED
from ms_vireid.search.exact import search_exact
from ms_vireid.search.feature_files import (
    Features,
    check_columns,
    check_names,
    from_archive,
    read_archive,
    write_archive,
)
from ms_vireid.search.result import NOTHING, nearest

KINDS = {"flat": faiss.IndexFlat, "ivf": faiss.IndexIVFFlat}
RECALL = 0.999  # of the ten nearest pictures, what ivf finds in a sample, as docs/search.md promises
ROUNDING = 2e-6  # of a similarity in float32
_LEAST_LISTS = 16  # to search; real queries lie farther from the gallery than those of the sample
_TRAINED_ROWS = 64  # to find a list's centre by
_QUERIES, _NEAREST = 256, 10  # of each kind, to measure recall by; rows that each is to find
_SAMPLED = 1024  # queries of a given sample at most
_BEYOND = 0.01  # of the measured queries of a kind may lie farther away than what counts as measured
_ROWS_AT_ONCE = 1 << 14
_MEMBER = "index.faiss"
_MAKE = "make one with --save-index"


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """An index of one of KINDS over the rows of a gallery, by inner product.

    measured: of an ivf index, how near to a list's centre, as a similarity, the queries were by which its recall was
    measured; inf: that is not known.
    """

    index: faiss.Index
    kind: str
    measured: float = math.inf

    def __len__(self) -> int:
        return self.index.ntotal

    def __str__(self) -> str:
        lists = f", searches {self.index.nprobe:,} of {self.index.nlist:,} lists" if self.kind == "ivf" else ""
        return f"{self.kind} index of {len(self)} pictures{lists}"

    def search(
        self, queries: np.ndarray, top_k: int, allowed: np.ndarray | None = None, breadth: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search_exact`. An ivf index is approximate: it searches `breadth` of its lists, by default as many as its
        sample needed. For more rows than the sample asked for, with `allowed`, bool [G], or for queries that are
        `far_away`, it searches all."""
        queries = np.ascontiguousarray(queries)
        filtered = {}
        if allowed is not None:
            filtered["sel"] = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self.kind == "flat":
            if breadth is not None:
                raise InputError(f"--breadth {breadth}: a flat index is searched whole; leave it out")
            parameters = faiss.SearchParameters(**filtered)
            return nearest(lambda count: self.index.search(queries, count, params=parameters), top_k, len(self))
        lists = breadth or (self.index.nprobe if top_k <= _NEAREST else self.index.nlist)
        lists, limit = (self.index.nlist, len(self)) if filtered else (lists, min(top_k, len(self)))
        far = self.far_away(queries) if breadth is None else np.zeros(len(queries), bool)
        shape = len(queries), min(top_k, limit)
        similarity, row = np.empty(shape, np.float32), np.empty(shape, np.int64)
        for chosen, breadth in ((~far, lists), (far, self.index.nlist)):
            if chosen.any():
                search = partial(self._search_lists, queries[chosen], lists=breadth, filtered=filtered)
                similarity[chosen], row[chosen] = nearest(search, top_k, limit)
        return similarity, row

    def far_away(self, queries: np.ndarray) -> np.ndarray:
        """Mark the queries of an ivf index that lie farther from the gallery than those by which its recall was
        measured, as of another modality: bool [Q]. None do where all lists are searched."""
        if self.index.nprobe >= self.index.nlist:
            return np.zeros(len(queries), bool)
        similarity, _ = self.index.quantizer.search(np.ascontiguousarray(queries), 1)
        return similarity[:, 0] < self.measured

    def _search_lists(
        self, queries: np.ndarray, count: int, lists: int, filtered: dict
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search that many lists, and more for a query whose lists hold fewer than `count` rows."""
        parameters = faiss.SearchParametersIVF(nprobe=lists, **filtered)
        similarity, row = self.index.search(queries, count, params=parameters)
        short = np.flatnonzero(row[:, -1] == NOTHING)
        if len(short) and lists < self.index.nlist:
            similarity[short], row[short] = self._search_lists(queries[short], count, 2 * lists, filtered)
        return similarity, row


def build_index(kind: str, features: np.ndarray, sample: np.ndarray | None = None) -> FaissIndex:
    """Index features, float32 [G, C]. kind: one of KINDS. sample: features like those of queries, float32 [S, C], by
    which an ivf index's recall is measured too."""
    count, width = features.shape
    if kind == "flat":
        index = faiss.IndexFlat(width, faiss.METRIC_INNER_PRODUCT)
    else:
        lists = min(count, int(4 * math.sqrt(count)))
        index = faiss.index_factory(width, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _TRAINED_ROWS
        index.train(features)
    starts = range(0, count, _ROWS_AT_ONCE)
    for start in progress(starts, len(starts), f"{kind} index", " features", _ROWS_AT_ONCE):
        index.add(features[start : start + _ROWS_AT_ONCE])
    if kind == "flat":
        return FaissIndex(index, kind)
    queries = _measured_by(index, features, sample)
    index.nprobe = _lists_needed(FaissIndex(index, kind), features, queries)
    nearness = (index.quantizer.search(of_kind, 1)[0] for of_kind in queries if len(of_kind))
    return FaissIndex(index, kind, min(float(np.quantile(one, _BEYOND)) for one in nearness))


def _measured_by(index: faiss.IndexIVFFlat, features: np.ndarray, sample: np.ndarray | None) -> list[np.ndarray]:
    """Queries of several kinds, float32 [n, C] each: rows, rows of lists drawn evenly, of which a crowd of nearly equal
    rows fills few, what lies between two rows, and the sample's."""
    generator = np.random.default_rng(0)
    members = [rows for rows, _ in _stored(index)]
    of_lists = [generator.choice(members[number]) for number in generator.integers(0, len(members), _QUERIES)]
    themselves, first, second = features[generator.integers(0, len(features), (3, _QUERIES))]
    between = first + second
    norms = np.linalg.norm(between, axis=1, keepdims=True)
    kinds = [themselves, features[of_lists], (between / np.maximum(norms, 1))[norms[:, 0] > 0.1]]
    if sample is not None:
        kinds.append(sample[np.linspace(0, len(sample) - 1, min(len(sample), _SAMPLED)).astype(int)])
    return [kind / np.linalg.norm(kind, axis=1, keepdims=True) for kind in kinds]


def _lists_needed(built: FaissIndex, features: np.ndarray, kinds: list[np.ndarray]) -> int:
    """The fewest lists whose search reaches RECALL for each of these kinds of queries; the first two are rows, which
    must find themselves too."""
    ends = np.cumsum([len(kind) for kind in kinds])[:-1]
    queries = np.concatenate(kinds)
    exact, _ = search_exact(queries, features, _NEAREST)
    lists = _LEAST_LISTS
    while lists < built.index.nlist:
        similarity, _ = built.search(queries, _NEAREST, breadth=lists)
        found = np.split(similarity >= exact[:, -1:] - ROUNDING, ends)
        alone = similarity[: 2 * _QUERIES, 0] >= exact[: 2 * _QUERIES, 0] - ROUNDING
        if min(one.mean() for one in (*found, alone) if len(one)) >= RECALL:
            return lists
        lists *= 2
    return built.index.nlist


def save_index(path: Path, index: FaissIndex, gallery: Features) -> None:
    """Write an index and its gallery. Raises InputError as `atomic_write` does."""
    about = {"index": index.kind} | ({"measured": index.measured} if math.isfinite(index.measured) else {})
    content = replace(gallery, info=gallery.info | about)
    write_archive(path, content, **{_MEMBER: faiss.serialize_index(index.index)})


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
    if kind not in KINDS or not isinstance(index, KINDS[kind]) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        wrong = f"holds a {type(index).__name__}, not an index of {', '.join(KINDS)} by inner product"
        anew = f"--gallery F.npz --index ivf --save-index {path}"
        raise InputError(f"{path}: {wrong}; rebuild it from the gallery's features: {anew}")
    measured = gallery.info.get("measured", math.inf)  # missing: saved by an earlier version
    if kind == "ivf":
        _check_lists(path, index)
        if type(measured) not in (int, float) or math.isnan(measured):
            raise InputError(f"{path}: its measured similarity is {shown(measured)}, not a number; {_MAKE}")
    for rows, features in _stored(index):
        if fault := first_fault(features):
            place, problem = fault
            raise InputError(f"{path}: row {rows[place]} ({gallery.paths[rows[place]]}) {problem}; {_MAKE}")
    return FaissIndex(index, kind, measured), gallery


def _check_lists(path: Path, index: faiss.IndexIVFFlat) -> None:
    """Raise InputError unless the lists hold each row once and have a centre each."""
    centres = faiss.downcast_index(index.quantizer)
    fits = isinstance(centres, faiss.IndexFlat) and centres.metric_type == index.metric_type
    fits = fits and index.nlist == index.invlists.nlist == centres.ntotal and index.d == centres.d
    fits = fits and index.code_size == index.invlists.code_size == 4 * index.d and 1 <= index.nprobe <= index.nlist
    rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in _stored(index))]) if fits else None
    if rows is None or not np.array_equal(np.sort(rows), np.arange(index.ntotal)):
        raise InputError(f"{path}: its lists do not fit its {index.ntotal} features; {_MAKE}")


def _stored(index: faiss.IndexFlat | faiss.IndexIVFFlat) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows, int64 [n], and their features, float32 [n, C], not copied: all of a flat index, or of each list that is not
    empty."""
    if isinstance(index, faiss.IndexFlat):
        values = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        yield np.arange(index.ntotal), values.reshape(index.ntotal, index.d)
        return
    lists = index.invlists
    for number in range(lists.nlist):
        if size := lists.list_size(number):
            codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
            features = codes.view(np.float32).reshape(size, index.d)
            yield faiss.rev_swig_ptr(lists.get_ids(number), size), features
