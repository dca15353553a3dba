"""FAISS indexes of a gallery (flat, HNSW, IVF), in one file with what is known about its pictures.

A `.index` file is an uncompressed zip with FAISS's own `index.faiss`, and the columns of a feature file
(ms_vireid/inference/feature_files.py) but for the features, which the index holds.
"""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.progress import progress
from ms_vireid.files.checks import DAMAGED, check_archive, require_file
from ms_vireid.files.writing import whole
from ms_vireid.inference.feature_files import COLUMNS, Features, RowsOnDisk, check_columns
from ms_vireid.search.found import nearest

KINDS = {"flat": faiss.IndexFlat, "hnsw": faiss.IndexHNSWFlat, "ivf": faiss.IndexIVFFlat}
LINKS = 32  # M of HNSW: neighbours of a node on each layer
BREADTH_OF_BUILDING = 200  # efConstruction of HNSW
BREADTH = {"flat": 0, "hnsw": 128, "ivf": 32}  # of a search: efSearch of HNSW, cells visited of IVF
_PICTURES_A_CELL = 39  # FAISS asks for as many to train on
_ROWS_AT_ONCE = 1 << 14
_MEMBER = "index.faiss"


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
        """As `search_exact`; what HNSW and IVF find is approximate, and the better the larger `breadth`.

        With `allowed`, bool [G], all kinds search exactly: in a graph the way to allowed pictures leads through others.
        """
        index = self.index
        breadth = breadth or BREADTH[self.kind]
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self.kind == "hnsw" and selector is not None:
            index = faiss.downcast_index(index.storage)

        def search(count: int) -> tuple[np.ndarray, np.ndarray]:
            if self.kind == "ivf":
                cells = index.nlist if selector is not None else min(breadth, index.nlist)
                parameters = faiss.SearchParametersIVF(nprobe=cells, sel=selector)
            elif self.kind == "hnsw" and selector is None:
                parameters = faiss.SearchParametersHNSW(efSearch=max(breadth, count))
            else:
                parameters = faiss.SearchParameters(sel=selector)
            return index.search(np.ascontiguousarray(queries), count, params=parameters)

        return nearest(search, top_k, len(self))


def build_index(kind: str, features: np.ndarray | RowsOnDisk) -> FaissIndex:
    """An index over float32 [G, C]; what is on disk is read in blocks."""
    count, width = features.shape
    if kind == "flat":
        index = faiss.IndexFlat(width, faiss.METRIC_INNER_PRODUCT)
        _reserve(index, count)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BREADTH_OF_BUILDING
        _reserve(faiss.downcast_index(index.storage), count)
    else:
        cells = max(1, min(round(2 * math.sqrt(count)), count // _PICTURES_A_CELL))
        quantizer = faiss.IndexFlat(width, faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexIVFFlat(quantizer, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # fewer than it likes are all that there are
        index.train(_spread(features, _PICTURES_A_CELL * cells))
    starts = range(0, count, _ROWS_AT_ONCE)
    for start in progress(starts, len(starts), f"{kind} index", " features", _ROWS_AT_ONCE):
        index.add(features[start : start + _ROWS_AT_ONCE])
    return FaissIndex(index, kind)


def _reserve(index: faiss.IndexFlat, count: int) -> None:
    """Space for all rows at once: growing by doubling, it would hold two copies for a while."""
    index.codes.resize(count * index.code_size)
    index.codes.clear()


def _spread(features: np.ndarray | RowsOnDisk, count: int) -> np.ndarray:
    """About `count` rows, evenly over all."""
    step = max(1, len(features) // count)
    rows = step * max(1, _ROWS_AT_ONCE // step)
    return np.concatenate([features[start : start + rows][::step] for start in range(0, len(features), rows)])


def save_index(path: Path, index: FaissIndex, gallery: Features) -> None:
    """Raises InputError as `whole` does."""
    columns = {name: getattr(gallery, name) for name in COLUMNS}
    info = json.dumps(gallery.info | {"index": index.kind}, sort_keys=True)
    with whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, column in (columns | {"info": np.array(info)}).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, column, allow_pickle=False)
        with archive.open(_MEMBER, "w", force_zip64=True) as member:
            try:
                faiss.write_index(index.index, faiss.PyCallbackIOWriter(member.write))
            except RuntimeError as error:  # how FAISS passes on what `write` raises
                raise OSError(str(error)) from None


def load_index(path: Path) -> tuple[FaissIndex, Features]:
    """An index that `save_index` wrote, and its gallery, without features.

    Raises:
        InputError: no such file, or not one that it wrote, whole.
    """
    require_file(path, "file; make it with --save-index")
    try:
        check_archive(path)  # FAISS's own reader trusts what it reads
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files if name != _MEMBER}
            with archive.zip.open(_MEMBER) as member:
                index = faiss.read_index(faiss.PyCallbackIOReader(member.read))
    except DAMAGED as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is not a saved index ({why}); make it with --save-index") from None
    *columns, info = check_columns(path, held, index.ntotal)
    kind = info.get("index")
    if kind not in KINDS or not isinstance(index, KINDS[kind]):
        raise InputError(f"{path}: holds a {type(index).__name__}, not an index of {', '.join(KINDS)}")
    return FaissIndex(index, kind), Features(np.zeros((0, index.d), np.float32), *columns, info)
