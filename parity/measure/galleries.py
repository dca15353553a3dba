"""The benchmark's section of search: exact, FAISS and Milvus, on synthetic galleries, each in its own process.

An identity has 50 pictures: its centre with noise around it, so that two of its features have an inner product of about
0.5 and others of about 0. Queries are further pictures of random identities of the gallery.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import run
from ms_vireid.data.folder_layout import UNKNOWN
from ms_vireid.search.exact import search_exact
from ms_vireid.search.feature_files import Features
from parity.measure.steps import Rows

KINDS = ("exact", "flat", "ivf", "Milvus exact", "Milvus hnsw")
SEARCH_ROWS = {f"{kind}, {size:,}": (kind, size) for size in (10**4, 10**5, 10**6) for kind in KINDS}
WIDTH, QUERIES, TOP_K = 2048, 200, 10
LIMIT, MEMORY = 600, 12 << 30  # seconds and bytes, of a row
_PER_IDENTITY = 50
_ROWS_AT_ONCE = 10_000


def search(names: Sequence[str], options: Namespace) -> Rows:
    """What `measure` says of each row, and the peak of its memory, beyond what it had at first and without the mapped
    file from which an index is built; a quick run has a hundredth of the features. A row that a limit, a signal or its
    library stops has the figures until then, and in `stopped` why.

    Raises:
        InputError: a row's process has a bug.
    """
    rows = [(name, *SEARCH_ROWS[name]) for name in names]
    for size in sorted({size for *_, size in rows}):
        with tempfile.TemporaryDirectory() as folder:
            count = size // 100 if options.quick else size
            _write(Path(folder), count)
            exact = _measured("exact", folder)  # the others' recall is against what it finds
            for name, kind, _ in (row for row in rows if row[-1] == size):
                yield name, {"features": count} | (exact if kind == "exact" else _measured(kind, folder))


def _measured(kind: str, folder: str) -> dict:
    with tempfile.TemporaryFile() as said:
        begun, peak, stopped = time.monotonic(), 0, ""
        with subprocess.Popen([sys.executable, "-m", __name__, kind, folder], stdout=said) as process:
            while process.poll() is None:
                peak = max(peak, _own_bytes(process.pid))
                if time.monotonic() - begun > LIMIT:
                    stopped = f"stopped after {LIMIT} s"
                elif peak > MEMORY:
                    stopped = f"stopped at {MEMORY >> 30} GiB"
                if stopped:
                    process.kill()
                time.sleep(0.05)
        if process.returncode == 1:
            raise InputError(f"{kind}: its process ended with 1; see its output above")
        said.seek(0)
        row = dict.fromkeys(("begin_bytes", "ready_s", "bytes", "search_s", "recall"))
        for line in said.read().splitlines():
            row |= json.loads(line)
    if process.returncode and not stopped:
        stopped = f"ended with {process.returncode}"
    return row | {"peak_bytes": max(0, peak - (row.pop("begin_bytes") or 0)), "stopped": stopped}


def _own_bytes(pid: int) -> int:
    """Return a process's resident memory without mapped files."""
    memory = psutil.Process(pid).memory_info()
    return memory.rss - memory.shared


def _write(folder: Path, count: int) -> None:
    """Write a gallery of `count` features, and the queries."""
    shape = count, WIDTH
    gallery = np.lib.format.open_memmap(folder / "gallery.npy", "w+", np.float32, shape)
    for first in range(0, count, _ROWS_AT_ONCE):
        numbers = np.arange(first, min(first + _ROWS_AT_ONCE, count))
        gallery[first : first + _ROWS_AT_ONCE] = _pictures(numbers // _PER_IDENTITY, first)
    identities = np.random.default_rng(0).integers(0, -(-count // _PER_IDENTITY), QUERIES)
    np.save(folder / "queries.npy", _pictures(identities, count))


def _pictures(identities: np.ndarray, seed: int) -> np.ndarray:
    """float32 [N, WIDTH], L2-normalised"""
    own, place = np.unique(identities, return_inverse=True)
    centres = np.stack([np.random.default_rng([1, identity]).standard_normal(WIDTH, np.float32) for identity in own])
    features = centres[place] + np.random.default_rng([2, seed]).standard_normal((len(place), WIDTH), np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def measure(kind: str, folder: Path) -> Iterator[dict]:
    """Yield figures as they come.

    ready_s: to read the features into memory for exact search, else to build an index of them or to add them to Milvus.
    bytes: on disk. search_s: of a thousand queries. recall: of the ten nearest. begin_bytes: of memory, with the
    libraries alone.
    """
    queries = np.load(folder / "queries.npy")
    yield {"begin_bytes": _own_bytes(os.getpid())}
    begun = time.perf_counter()
    gallery = np.load(folder / "gallery.npy", mmap_mode=None if kind == "exact" else "r")
    if kind == "exact":
        place = folder / "gallery.npy"
    elif kind.startswith("Milvus"):
        from ms_vireid.search.milvus_gallery import MilvusGallery  # needs pymilvus, which is optional

        place = folder / f"{kind.replace(' ', '_')}.db"
        milvus = MilvusGallery(str(place), "pictures", create=True)
        milvus.add(_content(gallery), kind.split()[1])
    else:
        from ms_vireid.search.faiss_index import build_index  # needs FAISS, which is optional

        place, index = folder / f"{kind}.faiss", build_index(kind, gallery)
    yield {"ready_s": time.perf_counter() - begun}
    if kind in ("flat", "ivf"):
        import faiss  # optional

        faiss.write_index(index.index, str(place))
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    yield {"bytes": sum(file.stat().st_size for file in files)}
    begun = time.perf_counter()
    if kind == "exact":
        _, found = search_exact(queries, gallery, TOP_K)
    elif kind.startswith("Milvus"):
        hits = milvus.search(_content(queries), TOP_K)
        found = np.array([[int(hit.entry.path) for hit in row] for row in hits])
    else:
        _, found = index.search(queries, TOP_K)
    yield {"search_s": 1000 / len(queries) * (time.perf_counter() - begun)}
    if kind == "exact":
        np.save(folder / "found.npy", found)
    expected = np.load(folder / "found.npy")
    yield {"recall": float(np.mean([len(np.intersect1d(*pair)) for pair in zip(found, expected, strict=True)]) / TOP_K)}
    if kind.startswith("Milvus"):
        milvus.close()


def _content(features: np.ndarray) -> Features:
    """Make pictures whose paths are their numbers."""
    people, cameras = np.full(len(features), ""), np.full(len(features), UNKNOWN, np.int32)
    paths = np.array([f"{i:07}" for i in range(len(features))])
    info = {"checkpoint": {"sha256": "0" * 64}, "config": {}, "images": "/pictures"}
    return Features(features, paths, np.full(len(features), "visible"), people, cameras, info)


def main() -> None:
    for figures in measure(sys.argv[1], Path(sys.argv[2])):
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    run(main)
