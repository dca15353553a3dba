"""Search a gallery for given pictures or features, and show the most similar ones as a table, JSON or a contact sheet.

The gallery is a feature file from ms_vireid/extract.py (.npz), a folder of pictures, an index saved by --save-index
(.index), or a Milvus collection: milvus:PATH.db is embedded, milvus:http://HOST:PORT is on a server.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import dataclasses
import time
from argparse import Namespace
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.arguments import SIMILARITY, Bounds
from ms_vireid.command.errors import InputError, one_line, refuse
from ms_vireid.command.names import INDEX, MILVUS, MODALITIES
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, add_layout, require_extra, run
from ms_vireid.files.writing import check_output, check_outside, write_json

if TYPE_CHECKING:
    from ms_vireid.config.schema import ValueRanges
    from ms_vireid.search.feature_files import Features, Pictures
    from ms_vireid.search.result import Hit, SearchResult

FAISS = ("flat", "ivf")  # of --index
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
    add_layout(parser)
    parser.add_number(
        "--top-k",
        Bounds(1, 100_000, "nobody looks at more, and each query's are kept; extract.py gives all"),
        default=10,
        help="how many to find for each query",
    )
    parser.add_argument(
        "--by-identity", action="store_true", help="find --top-k people, with the most similar picture of each"
    )
    parser.add_number(
        "--threshold", SIMILARITY, metavar="T", help="only those with a similarity of T or more, which may be none"
    )
    parser.add_number(
        "--camera",
        Bounds(0, 2**31 - 1, "feature files store cameras in signed 32 bits"),
        nargs="+",
        help="search only pictures by these cameras",
    )
    parser.add_argument(
        "--index",
        choices=("exact", "flat", "ivf", "hnsw"),
        help="how to search: exact, or with FAISS, flat (exact) or ivf (approximate, faster); for Milvus, the index "
        "that a new gallery gets: exact, flat or hnsw (default: exact, or what the gallery has)",
    )
    parser.add_number(
        "--breadth",
        Bounds(1, 100_000, "nearly all of a gallery that fits in memory: search it by flat"),
        help="lists that ivf searches (nprobe), or candidates that Milvus's hnsw keeps (ef): more are closer to exact, "
        "and slower (default: for --top-k 10 or less as many lists as a sample needed, else all; 128 candidates)",
    )
    parser.add_argument(
        "--rerank", action="store_true", help="re-rank by k-reciprocal encoding: an exact search that all queries share"
    )
    parser.add_argument(
        "--sample",
        type=Path,
        metavar="S",
        help="a folder or .npz like later queries, such as night: a new ivf index is measured by it, and by --query",
    )
    parser.add_argument("--save-index", type=Path, metavar="F", help=f"also write the FAISS index there ({INDEX})")
    parser.add_argument("--add", type=Path, metavar="A", help="first add this .npz or folder to the Milvus gallery")
    parser.add_argument("--collection", default="ms_vireid", metavar="NAME", help="name of the Milvus gallery")
    parser.add_argument(
        "--gallery-root", type=Path, metavar="D", help="folder of the gallery's pictures (default: as extracted)"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write what was found to F")
    parser.add_argument("--sheet", type=Path, metavar="F", help="also draw 20 queries, 10 hits each, as .png or .svg")
    add_inference(parser)
    arguments = parser.parse_args()
    _check(parser, arguments)
    _retrieve(arguments)


def _check(parser: Parser, arguments: Namespace) -> None:
    in_milvus, saved = arguments.gallery.startswith(MILVUS), Path(arguments.gallery).suffix.lower() == INDEX
    if not (arguments.query or arguments.add or arguments.save_index):
        raise InputError("nothing to do: give --query, --add or --save-index; see --help")
    if not arguments.query:
        of_search = "--top-k", "--by-identity", "--threshold", "--camera", "--breadth", "--rerank", "--json", "--sheet"
        parser.refuse(arguments, "nothing is searched without --query", *of_search)
    of_queries = [*(arguments.query or ()), arguments.sample]
    of_gallery = [None if in_milvus or saved else Path(arguments.gallery), arguments.add]
    pictures = [any(path and path.suffix.lower() != ".npz" for path in paths) for paths in (of_queries, of_gallery)]
    if not any(pictures):
        of_pictures = "--checkpoint", "--backend", "--tf32", "--modality", "--layout"
        parser.refuse(arguments, "no pictures are given, only features", *of_pictures)
    for what, has_pictures, modality in zip(
        ("queries", "gallery's pictures"), pictures, arguments.modality, strict=True
    ):
        if modality != "auto" and not has_pictures:
            raise InputError(f"--modality {modality}: the {what} are features, which know theirs; give auto for them")
    if not in_milvus:
        parser.refuse(
            arguments, f"only for a gallery in Milvus ({MILVUS}PATH.db or {MILVUS}http://...)", "--add", "--collection"
        )
        if not (saved or arguments.index == "ivf"):
            parser.refuse(arguments, "is for an approximate search, --index ivf", "--breadth")
        if arguments.camera:
            parser.refuse(arguments, "with --camera all lists are searched", "--breadth")
    if not (arguments.json or arguments.sheet or arguments.save_index or arguments.add):
        parser.refuse(
            arguments, "nothing needs the pictures without --sheet, --json, --save-index or --add", "--gallery-root"
        )
    if arguments.rerank and (in_milvus or saved or arguments.index in FAISS or arguments.camera):
        raise InputError("--rerank: takes features or pictures, without an index and without --camera")
    if arguments.save_index and (in_milvus or saved or arguments.index in (None, "exact")):
        raise InputError(f"--save-index {arguments.save_index}: needs features and --index flat or ivf")
    if arguments.sample and arguments.index != "ivf":
        raise InputError(f"--sample {arguments.sample}: is for --index ivf; leave it out")
    if arguments.index and saved:
        raise InputError(f"--index {arguments.index}: {arguments.gallery} is an index already; leave it out")
    if arguments.index == "ivf" and in_milvus:
        raise InputError("--index ivf: is FAISS's; in Milvus give --index hnsw")
    if arguments.index == "hnsw" and not in_milvus:
        raise InputError("--index hnsw: is Milvus's; for other galleries give --index ivf")
    if in_milvus and not arguments.add:
        parser.refuse(arguments, "a gallery in Milvus keeps what it got by --add", "--index", "--gallery-root")
    check_output(arguments.json, "--json")
    check_output(arguments.save_index, "--save-index", (INDEX,))
    check_output(arguments.sheet, "--sheet", (".png", ".svg"))
    if saved or (not in_milvus and arguments.index in FAISS):
        require_extra("this search", "search", "faiss")
    if in_milvus:
        embedded = [] if "://" in arguments.gallery else ["milvus_lite"]
        require_extra("this search", "search", "pymilvus", *embedded)
    if arguments.sheet:
        require_extra("this search", "viz", "matplotlib")


def _retrieve(arguments: Namespace) -> None:
    with at_once():
        from ms_vireid.data.validation import require_directory
        from ms_vireid.files.checks import require_utf8
        from ms_vireid.search.feature_files import layout_of
        from ms_vireid.search.sources import read_source

    of_query, of_gallery = arguments.modality
    if arguments.gallery.startswith(MILVUS):
        from ms_vireid.search.milvus_gallery import check_gallery  # needs pymilvus, which is optional

        check_gallery(arguments.gallery.removeprefix(MILVUS), arguments.collection, arguments.add is not None)
    if arguments.gallery_root:
        arguments.gallery_root = arguments.gallery_root.absolute()
        if arguments.save_index:
            require_utf8(arguments.gallery_root)
        require_directory(arguments.gallery_root, "give the folder of the gallery's pictures with --gallery-root")
    layout = arguments.layout
    searched = _read_gallery(arguments.gallery, of_gallery, layout)
    added = read_source([arguments.add], of_gallery, "--add", layout) if arguments.add else None
    tree = next((one.layout for one in (searched, added) if one is not None), None)
    if arguments.query and Path(arguments.gallery).suffix.lower() == INDEX:
        tree = layout_of(Path(arguments.gallery), "make one with --save-index")
    queries = read_source(arguments.query, of_query, "--query", layout, tree) if arguments.query else None
    if queries is not None and searched is not None:
        _note_two_trees(queries, searched)
    sample = read_source([arguments.sample], of_query, "--sample", layout) if arguments.sample else None
    _refuse_overwriting(arguments, (queries, added, searched, sample))
    queries, added, searched, sample = _embedded(arguments, queries, added, searched, sample)
    with _open(arguments, searched, added is not None, queries, sample) as gallery:
        if added is not None:
            before = len(gallery)
            gallery.add(_moved(added, arguments.gallery_root), arguments.index)
            new = len(gallery) - before
            say(f"{gallery.name}: {new} pictures added, {len(added) - new} replaced; {before + new} in all")
        if queries is not None:
            _search(gallery, queries, arguments)


def _note_two_trees(queries: "Features | Pictures", searched: "Features | Pictures") -> None:
    """Say that names in two trees, or at two levels of one, are taken for the same people. Raises InputError for
    numbers in file names, which each part of a set may count from 0."""
    from ms_vireid.config.layout_templates import FILE_NAMES
    from ms_vireid.data.folder_layout import part_of_set
    from ms_vireid.data.records import same_name
    from ms_vireid.search.feature_files import Features

    layouts = queries.layout, searched.layout
    both = set(map(same_name, queries.identities.tolist())) & set(map(same_name, searched.identities.tolist())) - {""}
    if both and all(layouts) and len({(one.top, one.text.partition("{identity}")[0]) for one in layouts}) > 1:
        roots = (one.info["images"] if isinstance(one, Features) else one.root for one in (queries, searched))
        where = " and ".join(map(str, roots))
        parts = {part_of_set([one.top.name]) for one in layouts if one.text in FILE_NAMES}
        if len(parts) > 1:
            refuse(sorted(both), f"{where}: people with the same number", layouts[1].tell_apart("--layout"))
        remedy = "if they are not, search the folder that holds both, with {site} in its --layout"
        say(one_line(f"note: equal names are taken for the same person in {where}; {remedy}"))


def _check_outputs(arguments: Namespace, reads: Iterable[Path]) -> None:
    """Raise InputError for an output that is read too, or is given twice."""
    reads = list(reads)
    outputs = {"--json": arguments.json, "--save-index": arguments.save_index, "--sheet": arguments.sheet}
    for option, output in outputs.items():
        check_output(output, option, reads=reads)
        reads.append(output)


def _refuse_overwriting(arguments: Namespace, sources: "Iterable[Features | Pictures | None]") -> None:
    """Raise InputError for an output that is among the files of the options or the pictures of the sources."""
    from ms_vireid.search.feature_files import Pictures
    from ms_vireid.search.start import files_read

    pictures = [path for source in sources if isinstance(source, Pictures) for path in source.images.paths]
    named = [*(arguments.query or ()), *filter(None, [arguments.add, arguments.sample])]
    gallery = Path(arguments.gallery.removeprefix(MILVUS))
    _check_outputs(arguments, [*pictures, *named, gallery, *files_read(*filter(None, [arguments.checkpoint]))])
    if arguments.gallery.startswith(MILVUS):
        check_outside(gallery, "--gallery", named)


def _read_gallery(gallery: str, modality: str, layout: str) -> "Features | Pictures | None":
    """Read a gallery; None for an index and for Milvus, which `_open` opens."""
    from ms_vireid.data.validation import require_directory
    from ms_vireid.search.sources import read_source

    path = Path(gallery)
    if gallery.startswith(MILVUS) or path.suffix.lower() == INDEX:
        return None
    if path.suffix.lower() != ".npz":
        require_directory(path, f"--gallery takes a folder of pictures, .npz, {INDEX} or {MILVUS}...")
    return read_source([path], modality, "--gallery", layout)


def _embedded(arguments: Namespace, *sources: "Features | Pictures | None") -> "list[Features | None]":
    """The sources, with the checkpoint's features for those that are pictures."""
    from ms_vireid.data.bit_depth import notes_on
    from ms_vireid.data.validation import check_pictures
    from ms_vireid.search.feature_files import Pictures
    from ms_vireid.search.start import start_inference

    pictures = [source for source in sources if isinstance(source, Pictures)]
    if not pictures:
        return list(sources)
    if arguments.checkpoint is None:
        raise InputError(f"--checkpoint is needed to embed the pictures of {pictures[0].root}; or give an .npz")
    (trained,) = start_inference(arguments, arguments.checkpoint)
    extractor, info = dataclasses.replace(trained.extractor, workers=0), trained.feature_info()
    for source in pictures:
        for note in notes_on(check_pictures(source.images), extractor.value_ranges, source.root):
            say(one_line(f"note: {note}"))
    return [
        source.with_features(extractor.extract(source.images), info) if isinstance(source, Pictures) else source
        for source in sources
    ]


def _moved(features: "Features", root: Path | None) -> "Features":
    """The features of pictures that now lie in `root`, if one is given."""
    return features if root is None else dataclasses.replace(features, info=features.info | {"images": str(root)})


def _open(
    arguments: Namespace,
    content: "Features | None",
    create: bool,
    queries: "Features | None",
    sample: "Features | None",
) -> AbstractContextManager:
    """Open the gallery for a search. content: its features, if they have been read. queries, sample: what it is
    searched by, and what else a new ivf index is measured by."""
    import numpy as np

    from ms_vireid.search.local_gallery import LocalGallery

    name, index = arguments.gallery, None
    if name.startswith(MILVUS):
        from ms_vireid.search.milvus_gallery import MilvusGallery  # needs pymilvus, which is optional

        return closing(MilvusGallery(name.removeprefix(MILVUS), arguments.collection, create))
    if content is None or arguments.index in FAISS:
        from ms_vireid.search.faiss_index import build_index, load_index, save_index  # needs FAISS, which is optional

        if content is None:
            index, content = load_index(Path(name))
        given = [one for one in (queries, sample) if one is not None]
        for one in given:
            LocalGallery(name, content).check_same_model(one)
        if index is None:
            sampled = np.concatenate([one.features for one in given]) if given else None
            index = build_index(arguments.index, content.features, sampled)
        if queries is not None and index.kind == "ivf" and (far := index.far_away(queries.features).sum()):
            which = f"{far} of {len(queries)} queries lie farther from it than those that its recall was measured by"
            remedy = "all lists are searched for them; save it with --sample and pictures like these to search fewer"
            say(one_line(f"note: {name}: {which}: {remedy}"))
    content = _moved(content, arguments.gallery_root)
    if arguments.save_index:
        save_index(arguments.save_index, index, content)
        say(f"{arguments.save_index}: {index}")
    return nullcontext(LocalGallery(name, content, index))


def _search(gallery, queries: "Features", arguments: Namespace) -> None:
    from ms_vireid.search.local_gallery import found_by
    from ms_vireid.search.result import accepted, as_json, format_result, nearest_people

    started_at = time.perf_counter()

    def search(count: int) -> "list[list[Hit]]":
        if arguments.rerank:
            return gallery.search_reranked(queries, count)
        return gallery.search(queries, count, arguments.camera, arguments.breadth)

    top_k = arguments.top_k
    hits = nearest_people(search, top_k, gallery.limit) if arguments.by_identity else search(top_k)
    took = time.perf_counter() - started_at
    results = found_by(queries, accepted(hits, arguments.threshold))
    if arguments.sheet:
        _check_outputs(arguments, (entry.file for result in results[:SHOWN] for entry in result.entries))
    for result in results[:SHOWN]:
        say(*format_result(result).split("\n"), "")
    hidden = f" (the first {SHOWN} are shown; --json has all)" if len(results) > SHOWN else ""
    say(f"queries: {len(results)}{hidden}, pictures: {len(gallery)}, search: {took:.2f} s")
    if arguments.json:
        about = {
            "gallery": gallery.name,
            "pictures": len(gallery),
            "checkpoint": queries.info["checkpoint"]["sha256"],
            "top_k": top_k,
            "by_identity": arguments.by_identity,
            "threshold": arguments.threshold,
            "cameras": arguments.camera,
            "reranked": arguments.rerank,
        }
        write_json(arguments.json, about | {"queries": [as_json(result) for result in results]})
    if arguments.sheet:
        _draw(results, arguments.sheet, queries.value_ranges)


def _draw(results: "list[SearchResult]", path: Path, value_ranges: "ValueRanges") -> None:
    # These need Matplotlib, which is optional.
    from ms_vireid.visualization.figure import save_figure
    from ms_vireid.visualization.sheet import draw_sheet

    figure, absent = draw_sheet(results[:SHOWN], value_ranges)
    save_figure(figure, path)
    shown = f", the first {SHOWN} of {len(results)} queries" if len(results) > SHOWN else ""
    missing = f", {absent} pictures are missing (--gallery-root?)" if absent else ""
    say(f"written: {path}{shown}{missing}")


if __name__ == "__main__":
    run(main)
