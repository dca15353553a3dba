"""Search a gallery with pictures or features: the most similar ones as a table, JSON or a contact sheet.

The gallery is a feature file of ms_vireid/extract.py (.npz), a folder of pictures, an index saved by --save-index
(.index), or a Milvus collection: milvus:PATH.db is embedded, milvus:http://HOST:PORT a server's.
"""

import dataclasses
import time
from argparse import Namespace
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, require_extra, run
from ms_vireid.files.writing import check_apart, check_output, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ms_vireid.inference.feature_files import Features, Pictures
    from ms_vireid.search.found import Found

MILVUS = "milvus:"
INDEX = ".index"
OUTPUTS = {"json": (), "save_index": (INDEX,), "sheet": (".png", ".svg")}  # options and their suffixes
SHOWN = 20  # queries of a table or a sheet that can still be looked at


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--query", type=Path, nargs="+", metavar="Q", help="pictures, one folder, or one .npz")
    parser.add_argument("--gallery", required=True, metavar="G", help=f".npz, folder, {INDEX} or {MILVUS}..., as above")
    add_checkpoint(parser, ", to embed pictures", required=False)
    parser.add_argument(
        "--modality",
        nargs=2,
        choices=(*MODALITIES, "auto"),
        default=("auto", "auto"),
        metavar=("OF_QUERY", "OF_GALLERY"),
        help="modality of the pictures; auto reads it from their folders",
    )
    parser.add_number("retrieve --top-k", default=10, help="how many to find for each query")
    parser.add_number("retrieve --camera", nargs="+", help="search pictures of these cameras only")
    parser.add_argument(
        "--index",
        choices=("exact", "flat", "hnsw"),
        help="how to search: exact, or by FAISS: flat (exact) or hnsw (approximate, faster); of a Milvus gallery, the "
        "index it is made with (default: exact, or what the gallery has)",
    )
    parser.add_number(
        "retrieve --breadth",
        help="candidates that hnsw keeps (efSearch, default 128): the more, the nearer to exact and the slower",
    )
    parser.add_argument(
        "--rerank", action="store_true", help="re-rank by k-reciprocal encoding: an exact search that all queries share"
    )
    parser.add_argument("--save-index", type=Path, metavar="F", help=f"also write the FAISS index there ({INDEX})")
    parser.add_argument("--add", type=Path, metavar="A", help="first add this .npz or folder to the Milvus gallery")
    parser.add_argument("--collection", default="ms_vireid", metavar="NAME", help="of the Milvus gallery")
    parser.add_argument("--gallery-root", type=Path, metavar="D", help="folder of its pictures (default: as extracted)")
    parser.add_argument("--json", type=Path, metavar="F", help="also write what was found to F")
    parser.add_argument("--sheet", type=Path, metavar="F", help="also draw 20 queries, 10 hits each, as .png or .svg")
    add_inference(parser)
    arguments = parser.parse_args()
    _check(arguments)

    from ms_vireid.search.sources import read_source

    of_query, of_gallery = arguments.modality
    queries = read_source(arguments.query, of_query, "--query") if arguments.query else None
    added = read_source([arguments.add], of_gallery, "--add") if arguments.add else None
    searched = _read_gallery(arguments.gallery, of_gallery)
    _require_apart(arguments, (queries, added, searched))
    queries, added, searched = _embedded(arguments, queries, added, searched)
    with _open(arguments, searched, added is not None) as gallery:
        if added is not None:
            before = len(gallery)
            gallery.add(_moved(added, arguments.gallery_root), arguments.index)
            new = len(gallery) - before
            say(f"{gallery.name}: {new} pictures added, {len(added) - new} replaced; {before + new} in all")
        if queries is not None:
            _search(gallery, queries, arguments)


def _check(arguments: Namespace) -> None:
    """Refuse what is wrong with the options before the work."""
    in_milvus, saved = arguments.gallery.startswith(MILVUS), Path(arguments.gallery).suffix.lower() == INDEX
    if not (arguments.query or arguments.add or arguments.save_index):
        raise InputError("nothing to do: give --query, --add or --save-index; see --help")
    for name in ("sheet", "json"):
        if getattr(arguments, name) and not arguments.query:
            raise InputError(f"--{name} {getattr(arguments, name)}: needs --query; give one, or leave it out")
    if arguments.rerank and (in_milvus or saved or arguments.index in ("flat", "hnsw") or arguments.camera):
        raise InputError("--rerank: takes features or pictures, without an index and without --camera")
    if arguments.add and not in_milvus:
        raise InputError(f"--add {arguments.add}: only for a gallery in Milvus ({MILVUS}PATH.db or {MILVUS}http://...)")
    if arguments.save_index and (in_milvus or saved or arguments.index in (None, "exact")):
        raise InputError(f"--save-index {arguments.save_index}: needs features and --index flat or hnsw")
    if arguments.index and saved:
        raise InputError(f"--index {arguments.index}: {arguments.gallery} is an index already; leave it out")
    _check_outputs(arguments)
    if saved or (not in_milvus and arguments.index in ("flat", "hnsw")):
        require_extra("this search", "search", "faiss")
    if in_milvus:
        embedded = [] if "://" in arguments.gallery else ["milvus_lite"]
        require_extra("this search", "search", "pymilvus", *embedded)
        from ms_vireid.search.milvus_gallery import check_gallery

        check_gallery(arguments.gallery.removeprefix(MILVUS), arguments.collection, arguments.add is not None)
    if arguments.sheet:
        require_extra("this search", "viz", "matplotlib")


def _check_outputs(arguments: Namespace, reads: "Iterable[Path]" = ()) -> None:
    """Refuse outputs that cannot be written, or are among the files and folders that are read."""
    reads = list(reads)
    for name, suffixes in OUTPUTS.items():
        output = getattr(arguments, name)
        check_output(output, f"--{name.replace('_', '-')}", suffixes, reads)
        reads.append(output)


def _require_apart(arguments: Namespace, sources: "Iterable[Features | Pictures | None]") -> None:
    """Refuse to write where the options' files and folders, and the pictures of the `sources`, are read from."""
    from ms_vireid.inference import files_read
    from ms_vireid.inference.feature_files import Pictures

    pictures = [path for source in sources if isinstance(source, Pictures) for path in source.images.paths]
    given = [*(arguments.query or ()), *filter(None, [arguments.add])]
    gallery = Path(arguments.gallery.removeprefix(MILVUS))
    _check_outputs(arguments, [*pictures, *given, gallery, *files_read(*filter(None, [arguments.checkpoint]))])
    if arguments.gallery.startswith(MILVUS):
        check_apart(gallery, "--gallery", given)


def _read_gallery(gallery: str, modality: str) -> "Features | Pictures | None":
    """None of a gallery that is opened rather than read: an index, Milvus."""
    from ms_vireid.data.validation import require_directory
    from ms_vireid.search.sources import read_source

    path = Path(gallery)
    if gallery.startswith(MILVUS) or path.suffix.lower() == INDEX:
        return None
    if path.suffix.lower() != ".npz":
        require_directory(path, f"--gallery takes a folder of pictures, .npz, {INDEX} or {MILVUS}...")
    return read_source([path], modality, "--gallery")


def _embedded(arguments: Namespace, *sources: "Features | Pictures | None") -> "list[Features | None]":
    """The sources with features; the checkpoint gives those of pictures."""
    from ms_vireid.inference import start_inference
    from ms_vireid.inference.feature_files import Pictures

    pictures = [source for source in sources if isinstance(source, Pictures)]
    if not pictures:
        return list(sources)
    if arguments.checkpoint is None:
        raise InputError(f"--checkpoint is needed to embed the pictures of {pictures[0].root}; or give an .npz")
    program = start_inference(arguments, arguments.checkpoint)
    from ms_vireid.inference.trained import load_trained

    (trained,) = load_trained([arguments.checkpoint], program)
    extractor, info = dataclasses.replace(trained.extractor, workers=0), trained.feature_info()
    return [
        source.with_features(extractor.extract(source.images), info) if isinstance(source, Pictures) else source
        for source in sources
    ]


def _moved(features: "Features", root: Path | None) -> "Features":
    if root is None:
        return features
    from ms_vireid.data.validation import require_directory

    require_directory(root, "give the folder of the gallery's pictures with --gallery-root")
    return dataclasses.replace(features, info=features.info | {"images": str(root.absolute())})


def _open(arguments: Namespace, content: "Features | None", create: bool) -> AbstractContextManager:
    """The gallery, to be searched. content: its features, where they have been read."""
    name, root = arguments.gallery, arguments.gallery_root
    if name.startswith(MILVUS):
        from ms_vireid.search.milvus_gallery import MilvusGallery

        return closing(MilvusGallery(name.removeprefix(MILVUS), arguments.collection, create))
    from ms_vireid.search.local_gallery import LocalGallery

    index = None
    if content is None:
        from ms_vireid.search.faiss_index import load_index

        index, content = load_index(Path(name))
    elif arguments.index not in (None, "exact"):
        from ms_vireid.search.faiss_index import build_index, save_index

        index = build_index(arguments.index, content.features)
        if arguments.save_index:
            save_index(arguments.save_index, index, _moved(content, root))
            say(f"{arguments.save_index}: {arguments.index} index of {len(content)} pictures")
    return nullcontext(LocalGallery(name, _moved(content, root), index))


def _search(gallery, queries: "Features", arguments: Namespace) -> None:
    from ms_vireid.search.found import as_json, format_found
    from ms_vireid.search.local_gallery import found_by

    began = time.perf_counter()
    if arguments.rerank:
        hits = gallery.search_reranked(queries, arguments.top_k)
    else:
        hits = gallery.search(queries, arguments.top_k, arguments.camera, arguments.breadth)
    took = time.perf_counter() - began
    found = found_by(queries, hits)
    if arguments.sheet:
        _check_outputs(arguments, (one.file for each in found[:SHOWN] for one in each.entries))
    for one in found[:SHOWN]:
        say(*format_found(one).split("\n"), "")
    hidden = f" (the first {SHOWN} are shown; --json has all)" if len(found) > SHOWN else ""
    say(f"queries: {len(found)}{hidden}, pictures: {len(gallery)}, search: {took:.2f} s")
    if arguments.json:
        about = {
            "gallery": gallery.name,
            "pictures": len(gallery),
            "checkpoint": queries.info["checkpoint"]["sha256"],
            "top_k": arguments.top_k,
            "cameras": arguments.camera,
            "reranked": arguments.rerank,
        }
        write_json(arguments.json, about | {"queries": [as_json(one) for one in found]})
    if arguments.sheet:
        _draw(found, arguments.sheet)


def _draw(found: "list[Found]", path: Path) -> None:
    from ms_vireid.search.sheet import draw_sheet
    from ms_vireid.visualization.figure import save_figure

    figure, absent = draw_sheet(found[:SHOWN])
    save_figure(figure, path)
    shown = f", the first {SHOWN} of {len(found)} queries" if len(found) > SHOWN else ""
    missing = f", {absent} pictures are not there (--gallery-root?)" if absent else ""
    say(f"written: {path}{shown}{missing}")


if __name__ == "__main__":
    run(main)
