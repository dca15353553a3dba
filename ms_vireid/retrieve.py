"""Search a gallery with pictures or features: the most similar ones as a table, JSON or a contact sheet.

The gallery is a feature file of ms_vireid/extract.py (.npz, read from disk in blocks), a folder of pictures, an index
saved by --save-index (.index), or a Milvus collection: milvus:PATH.db is embedded, milvus:http://HOST:PORT a server's.
"""

import dataclasses
import time
from argparse import Namespace
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, add_inference, check_least, require_extra, run
from ms_vireid.data.layout import MODALITIES
from ms_vireid.data.validation import require_directory
from ms_vireid.files.writing import check_output, write_json
from ms_vireid.inference.feature_files import Features
from ms_vireid.inference.starting import start_inference
from ms_vireid.search.found import Found, Wanted
from ms_vireid.search.listing import as_json, format_found
from ms_vireid.search.local_gallery import LocalGallery, picture
from ms_vireid.search.picture_times import parse_time, picture_times
from ms_vireid.search.sources import Pictures, read_source

MILVUS = "milvus:"
INDEX = ".index"
SHOWN = 20  # queries of a table or a sheet that can still be looked at


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--query", type=Path, nargs="+", metavar="Q", help="pictures, one folder, or one .npz")
    parser.add_argument(
        "--gallery", required=True, metavar="G", help=f".npz, folder, {INDEX} or {MILVUS}...: see above"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="P", help="model.safetensors or last.safetensors, to embed pictures"
    )
    parser.add_argument(
        "--modality",
        nargs=2,
        choices=(*MODALITIES, "auto"),
        default=("auto", "auto"),
        metavar=("OF_QUERY", "OF_GALLERY"),
        help="visible, infrared or auto, of pictures; auto reads it from their folders",
    )
    parser.add_argument("--top-k", type=int, default=10, metavar="N", help="how many to find for each query")
    parser.add_argument("--camera", type=int, nargs="+", metavar="N", help="search pictures of these cameras only")
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="search pictures taken then or later only: an ISO time, as 2026-11-20 or 2026-11-20T06:30, of this "
        "computer's zone if it names none. A picture's time is in its name, else in its EXIF, else its file's",
    )
    parser.add_argument(
        "--index",
        choices=("exact", "flat", "hnsw", "ivf"),
        help="how to search: exact, or by FAISS: flat (exact), hnsw or ivf (approximate, faster); of a Milvus gallery, "
        "the index it is made with (default: exact, or what the gallery has)",
    )
    parser.add_argument(
        "--breadth",
        type=int,
        metavar="N",
        help="the larger, the nearer to exact and the slower: candidates that hnsw keeps (efSearch, default 128), "
        "cells that ivf visits (nprobe, default 32)",
    )
    parser.add_argument("--save-index", type=Path, metavar="F", help=f"also write the FAISS index there ({INDEX})")
    parser.add_argument("--add", type=Path, metavar="A", help="first add this .npz or folder to the Milvus gallery")
    parser.add_argument("--collection", default="ms_vireid", metavar="NAME", help="of the Milvus gallery")
    parser.add_argument(
        "--gallery-root", type=Path, metavar="D", help="folder of the gallery's pictures (default: as extracted)"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write what was found there")
    parser.add_argument(
        "--sheet", type=Path, metavar="F", help="also draw it there (.png or .svg), the first 20 queries and 10 hits"
    )
    add_inference(parser)
    arguments = parser.parse_args()
    _check(arguments)
    wanted = Wanted(
        tuple(arguments.camera) if arguments.camera else None, parse_time(arguments.since) if arguments.since else None
    )

    of_query, of_gallery = arguments.modality
    queries = read_source(arguments.query, of_query, "--query") if arguments.query else None
    added = read_source([arguments.add], of_gallery, "--add") if arguments.add else None
    gallery = _read_gallery(arguments, of_gallery)
    queries, added, gallery = _embedded(arguments, queries, added, gallery)
    if arguments.gallery_root and gallery is not None:
        gallery = _moved(gallery, arguments.gallery_root)
    if arguments.gallery_root and added is not None:
        added = _moved(added, arguments.gallery_root)

    if arguments.gallery.startswith(MILVUS):
        from ms_vireid.search.milvus_gallery import MilvusGallery

        target = MilvusGallery(arguments.gallery.removeprefix(MILVUS), arguments.collection, added is not None)
        try:
            if added is not None:
                _add(target, added, arguments.index)
            if queries is not None:
                _search(target, queries, wanted, arguments)
        finally:
            target.close()
    else:
        target = _local_gallery(arguments, gallery)
        if queries is not None:
            _search(target, queries, wanted, arguments)


def _check(arguments: Namespace) -> None:
    """What is wrong with the options is said before the work."""
    in_milvus, saved = arguments.gallery.startswith(MILVUS), Path(arguments.gallery).suffix == INDEX
    if not (arguments.query or arguments.add or arguments.save_index):
        raise InputError("nothing to do: give --query, --add or --save-index; see --help")
    check_least(arguments, top_k=1, breadth=1)
    if arguments.add and not in_milvus:
        raise InputError(f"--add {arguments.add}: only for a gallery in Milvus ({MILVUS}PATH.db or {MILVUS}http://...)")
    if arguments.save_index and (in_milvus or saved or arguments.index in (None, "exact")):
        raise InputError(f"--save-index {arguments.save_index}: needs features and --index flat, hnsw or ivf")
    if arguments.index and saved:
        raise InputError(f"--index {arguments.index}: {arguments.gallery} is an index already; leave it out")
    check_output(arguments.save_index, "--save-index", (INDEX,))
    check_output(arguments.sheet, "--sheet", (".png", ".svg"))
    check_output(arguments.json, "--json")
    if saved or (not in_milvus and arguments.index in ("flat", "hnsw", "ivf")):
        require_extra("this search", "search", "faiss")
    if in_milvus:
        embedded = [] if "://" in arguments.gallery else ["milvus_lite"]
        require_extra("this search", "search", "pymilvus", *embedded)
    if arguments.sheet:
        require_extra("this search", "viz", "matplotlib")


def _read_gallery(arguments: Namespace, modality: str) -> Features | Pictures | None:
    """None of a gallery that is not read, but opened: an index, Milvus."""
    path = Path(arguments.gallery)
    if arguments.gallery.startswith(MILVUS) or path.suffix == INDEX:
        return None
    if path.suffix != ".npz":
        require_directory(path, f"--gallery takes a folder of pictures, .npz, {INDEX} or {MILVUS}...")
    return read_source([path], modality, "--gallery")


def _embedded(arguments: Namespace, *sources: Features | Pictures | None) -> list[Features | None]:
    """The sources with features; of pictures, those that the checkpoint gives."""
    pictures = [source for source in sources if isinstance(source, Pictures)]
    if not pictures:
        return list(sources)
    if arguments.checkpoint is None:
        raise InputError(f"--checkpoint is needed to embed the pictures of {pictures[0].root}; or give an .npz")
    program = start_inference(arguments)
    from ms_vireid.inference.picture_features import Embedder

    embed = Embedder(arguments.checkpoint, program)
    return [embed(source) if isinstance(source, Pictures) else source for source in sources]


def _moved(features: Features, root: Path) -> Features:
    require_directory(root, "give the folder of the gallery's pictures with --gallery-root")
    return dataclasses.replace(features, info=features.info | {"images": str(root.absolute())})


def _local_gallery(arguments: Namespace, content: Features | None) -> LocalGallery:
    if content is None:
        from ms_vireid.search.faiss_index import load_index

        index, content = load_index(Path(arguments.gallery))
        if arguments.gallery_root:
            content = _moved(content, arguments.gallery_root)
        return LocalGallery(arguments.gallery, content, index)
    if arguments.index in (None, "exact"):
        return LocalGallery(arguments.gallery, content)
    from ms_vireid.search.faiss_index import build_index, save_index

    index = build_index(arguments.index, content.features)
    if arguments.save_index:
        save_index(arguments.save_index, index, content)
        print(f"{arguments.save_index}: {arguments.index} index of {len(content)} pictures")
    return LocalGallery(arguments.gallery, content, index)


def _add(target, features: Features, kind: str | None) -> None:
    before = len(target)
    times, _ = picture_times([features.file(path) for path in features.paths.tolist()])
    target.add(features, times, kind)
    total = len(target)
    print(f"{target.name}: {total - before} pictures added, {len(features) - total + before} replaced; {total} in all")


def _search(target, queries: Features, wanted: Wanted, arguments: Namespace) -> None:
    queries = dataclasses.replace(queries, features=queries.features[:])  # in memory
    began = time.perf_counter()
    hits = target.search(queries, arguments.top_k, wanted, arguments.breadth)
    took = time.perf_counter() - began
    found = [Found(picture(queries, row), row_hits) for row, row_hits in enumerate(hits)]
    for one in found[:SHOWN]:
        print(f"{format_found(one)}\n")
    hidden = f" (the first {SHOWN} are shown; --json has all)" if len(found) > SHOWN else ""
    print(f"queries: {len(found)}{hidden}, pictures: {len(target)}, search: {took:.2f} s")
    if arguments.json:
        about = {
            "gallery": target.name,
            "pictures": len(target),
            "checkpoint": queries.info["checkpoint"]["sha256"],
            "top_k": arguments.top_k,
            "cameras": wanted.cameras,
            "since": arguments.since,
        }
        write_json(arguments.json, as_json(found, about))
    if arguments.sheet:
        _draw(found, arguments.sheet)


def _draw(found: list[Found], path: Path) -> None:
    from ms_vireid.search.sheet import draw_sheet
    from ms_vireid.visualization.figure import save_figure

    figure, absent = draw_sheet(found[:SHOWN])
    save_figure(figure, path)
    shown = f", the first {SHOWN} of {len(found)} queries" if len(found) > SHOWN else ""
    missing = f", {absent} pictures are not there (--gallery-root?)" if absent else ""
    print(f"written: {path}{shown}{missing}")


if __name__ == "__main__":
    run(main)
