"""Time and memory of searches in large galleries: exact from disk and FAISS flat over 1,000,000 features of 768
dimensions, HNSW over 200,000 with its recall.

The features are like identities: some random directions, with twenty pictures scattered about each. They are written
to a temporary folder, which takes up to 3.1 GB, and each search is a process of its own, whose peak memory is its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.progress import progress
from ms_vireid.command.running import Parser, require_extra, run
from ms_vireid.devices.host import processor_name
from ms_vireid.devices.memory import peak_bytes
from ms_vireid.files.writing import write_json
from ms_vireid.inference.feature_files import FORMAT, load_features, open_features

WIDTH = 768  # of ViT-B
TOP_K = 10
QUERIES = 100
PICTURES = 20  # of an identity
SCATTER = 0.8  # standard deviation about an identity's direction, as a share of its length: cosines of about 0.6
LEAST_RECALL = 0.95
_IDENTITIES_AT_ONCE = 512


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a 20th of the size")
    parser.add_argument("--folder", type=Path, metavar="D", help="where to make the temporary folder (default: /tmp)")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures there")
    parser.add_argument("--case", nargs=2, metavar=("NAME", "D"), help="one search of the features in D, as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        name, folder = arguments.case[0], Path(arguments.case[1])
        print(json.dumps(_exact(folder) if name == "exact" else _approximate(folder, name)))
        return
    require_extra("this benchmark", "search", "faiss")
    sizes = (50_000, 10_000) if arguments.quick else (1_000_000, 200_000)
    print(f"{processor_name()}, {len(os.sched_getaffinity(0))} cores; {QUERIES} queries, top {TOP_K}")
    figures = {}
    for size, names in zip(sizes, (("exact", "flat"), ("hnsw",)), strict=True):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            write_gallery(Path(folder), size)
            for name in names:
                figures[name] = {"features": size} | _measure(name, folder)
                print(_line(name, figures[name]), flush=True)
    if arguments.json:
        write_json(arguments.json, figures)
    if figures["hnsw"]["recall"] < LEAST_RECALL:
        raise InputError(f"recall@{TOP_K} of HNSW is {figures['hnsw']['recall']:.3f}, below {LEAST_RECALL}")


def write_gallery(folder: Path, size: int) -> None:
    """`gallery.npz`, written block by block, and `query.npz`, as ms_vireid/extract.py writes them."""
    rng = np.random.default_rng(0)
    identities = np.repeat(np.arange(size // PICTURES, dtype=np.int32), PICTURES)
    starts = range(0, size // PICTURES, _IDENTITIES_AT_ONCE)
    every = -(-(size // PICTURES) // QUERIES)  # identities from one query to the next
    queries, asked = [], []
    with zipfile.ZipFile(folder / "gallery.npz", "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(identities), WIDTH)}
            np.lib.format.write_array_header_1_0(member, header)
            for start in progress(starts, len(starts), "features", " features", _IDENTITIES_AT_ONCE * PICTURES):
                numbers = np.arange(start, min(start + _IDENTITIES_AT_ONCE, size // PICTURES))
                directions = rng.standard_normal((len(numbers), WIDTH), np.float32)
                member.write(_scattered(directions.repeat(PICTURES, axis=0), rng).tobytes())
                chosen = numbers % every == 0
                queries.append(_scattered(directions[chosen], rng))
                asked.append(numbers[chosen])
        for name, column in _columns(identities).items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, column, allow_pickle=False)
    with (folder / "gallery.npz").open("rb") as file:  # out of the page cache, so that searches read the disk
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    np.savez(folder / "query.npz", features=np.concatenate(queries), **_columns(np.concatenate(asked)))


def _scattered(directions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    features = directions + np.float32(SCATTER) * rng.standard_normal(directions.shape, np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def _columns(identities: np.ndarray) -> dict[str, np.ndarray]:
    count = len(identities)
    info = {
        "format": FORMAT,
        "version": "",
        "checkpoint": {"file": "", "sha256": ""},
        "config": {},
        "images": ".",
        "skipped": {},
    }
    return {
        "paths": np.array([f"{i:07d}.jpg" for i in range(count)]),
        "modality": np.full(count, "visible"),
        "identities": identities.astype(np.int32),
        "cameras": np.ones(count, np.int32),
        "info": np.array(json.dumps(info)),
    }


def _measure(name: str, folder: str) -> dict:
    """A search in a process of its own: seconds, GiB, recall."""
    command = [sys.executable, __file__, "--case", name, folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise InputError(f"the search {name} ended with {done.returncode}; see above")
    return json.loads(done.stdout)


def _line(name: str, figures: dict) -> str:
    size = f"{figures['features']:,} x {WIDTH}"
    made = f"index {figures['build_s']:.1f} s, " if "build_s" in figures else ""
    held = f"peak memory {figures['peak_gib']:.2f} GiB (the features are {figures['features_gib']:.2f} GiB)"
    found = f", recall@{TOP_K} {figures['recall']:.3f}" if "recall" in figures else ""
    return f"{name:<6} {size:<16} {made}search {figures['search_s']:.3f} s, {held}{found}"


def _exact(folder: Path) -> dict:
    from ms_vireid.search.exact import search_exact

    gallery, queries = open_features(folder / "gallery.npz"), load_features(folder / "query.npz")
    began = time.perf_counter()
    search_exact(queries.features, gallery.features, TOP_K)
    return _figures(gallery.features.shape, search_s=time.perf_counter() - began)


def _approximate(folder: Path, kind: str) -> dict:
    from ms_vireid.search.exact import search_exact
    from ms_vireid.search.faiss_index import build_index

    gallery, queries = open_features(folder / "gallery.npz"), load_features(folder / "query.npz")
    began = time.perf_counter()
    index = build_index(kind, gallery.features)
    built = time.perf_counter()
    _, found = index.search(queries.features, TOP_K)
    searched = time.perf_counter()
    figures = _figures(gallery.features.shape, build_s=built - began, search_s=searched - built)
    _, exact = search_exact(queries.features, gallery.features, TOP_K)
    same = [len(np.intersect1d(*pair)) for pair in zip(found, exact, strict=True)]
    return figures | {"recall": float(np.mean(same)) / TOP_K}


def _figures(shape: tuple[int, int], **seconds: float) -> dict:
    return seconds | {"peak_gib": peak_bytes() / 2**30, "features_gib": 4 * shape[0] * shape[1] / 2**30}


if __name__ == "__main__":
    run(main)
