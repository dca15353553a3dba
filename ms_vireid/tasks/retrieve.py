"""A search: read queries and gallery, search, and show the hits."""

import argparse
import dataclasses
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from ms_vireid.command.errors import InputError, one_line
from ms_vireid.command.names import INDEX, MILVUS
from ms_vireid.command.printing import say
from ms_vireid.config.schema import ValueRanges
from ms_vireid.data.bit_depth import notes_on
from ms_vireid.data.records import same_name
from ms_vireid.data.validation import check_pictures, require_directory
from ms_vireid.files.writing import check_output, check_outside, write_json
from ms_vireid.search.feature_files import Features, Pictures, layout_of
from ms_vireid.search.local_gallery import LocalGallery, found_by
from ms_vireid.search.result import Hit, SearchResult, accepted, as_json, format_result, nearest_people
from ms_vireid.search.sources import read_source
from ms_vireid.search.start import files_read, load_trained, start_inference

SHOWN = 20  # queries of a table or a sheet that can still be looked at


def main(arguments: argparse.Namespace) -> None:
    of_query, of_gallery = arguments.modality
    if arguments.gallery.startswith(MILVUS):
        from ms_vireid.search.milvus_gallery import check_gallery  # needs pymilvus, which is optional

        check_gallery(arguments.gallery.removeprefix(MILVUS), arguments.collection, arguments.add is not None)
    layout = arguments.layout
    searched = _read_gallery(arguments.gallery, of_gallery, layout)
    added = read_source([arguments.add], of_gallery, "--add", layout) if arguments.add else None
    tree = next((one.layout for one in (searched, added) if one is not None), None)
    if arguments.query and Path(arguments.gallery).suffix.lower() == INDEX:
        tree = layout_of(Path(arguments.gallery), "make it with --save-index")
    queries = read_source(arguments.query, of_query, "--query", layout, tree) if arguments.query else None
    if queries is not None and searched is not None:
        _note_two_trees(queries, searched)
    _refuse_overwriting(arguments, (queries, added, searched))
    queries, added, searched = _embedded(arguments, queries, added, searched)
    with _open(arguments, searched, added is not None) as gallery:
        if added is not None:
            before = len(gallery)
            gallery.add(_moved(added, arguments.gallery_root), arguments.index)
            new = len(gallery) - before
            say(f"{gallery.name}: {new} pictures added, {len(added) - new} replaced; {before + new} in all")
        if queries is not None:
            _search(gallery, queries, arguments)


def _note_two_trees(queries: Features | Pictures, searched: Features | Pictures) -> None:
    """Say that names in two trees, or at two levels of one, are taken for the same people."""
    layouts = queries.layout, searched.layout
    both = set(map(same_name, queries.identities.tolist())) & set(map(same_name, searched.identities.tolist())) - {""}
    if both and all(layouts) and len({(one.top, one.text.partition("{identity}")[0]) for one in layouts}) > 1:
        roots = (one.info["images"] if isinstance(one, Features) else one.root for one in (queries, searched))
        where = " and ".join(map(str, roots))
        remedy = "if they are not, search the folder that holds both, with {site} in its --layout"
        say(one_line(f"note: equal names are taken for the same person in {where}; {remedy}"))


def _check_outputs(arguments: argparse.Namespace, reads: Iterable[Path]) -> None:
    """Raise InputError for an output that is read too, or is given twice."""
    reads = list(reads)
    outputs = {"--json": arguments.json, "--save-index": arguments.save_index, "--sheet": arguments.sheet}
    for option, output in outputs.items():
        check_output(output, option, reads=reads)
        reads.append(output)


def _refuse_overwriting(arguments: argparse.Namespace, sources: Iterable[Features | Pictures | None]) -> None:
    """Raise InputError for an output that is among the files of the options or the pictures of the sources."""
    pictures = [path for source in sources if isinstance(source, Pictures) for path in source.images.paths]
    named = [*(arguments.query or ()), *filter(None, [arguments.add])]
    gallery = Path(arguments.gallery.removeprefix(MILVUS))
    _check_outputs(arguments, [*pictures, *named, gallery, *files_read(*filter(None, [arguments.checkpoint]))])
    if arguments.gallery.startswith(MILVUS):
        check_outside(gallery, "--gallery", named)


def _read_gallery(gallery: str, modality: str, layout: str) -> Features | Pictures | None:
    """Read a gallery; None for an index and for Milvus, which `_open` opens."""
    path = Path(gallery)
    if gallery.startswith(MILVUS) or path.suffix.lower() == INDEX:
        return None
    if path.suffix.lower() != ".npz":
        require_directory(path, f"--gallery takes a folder of pictures, .npz, {INDEX} or {MILVUS}...")
    return read_source([path], modality, "--gallery", layout)


def _embedded(arguments: argparse.Namespace, *sources: Features | Pictures | None) -> list[Features | None]:
    """The sources, with the checkpoint's features for those that are pictures."""
    pictures = [source for source in sources if isinstance(source, Pictures)]
    if not pictures:
        return list(sources)
    if arguments.checkpoint is None:
        raise InputError(f"--checkpoint is needed to embed the pictures of {pictures[0].root}; or give an .npz")
    backend = start_inference(arguments, arguments.checkpoint)
    (trained,) = load_trained([arguments.checkpoint], backend)
    extractor, info = dataclasses.replace(trained.extractor, workers=0), trained.feature_info()
    for source in pictures:
        for note in notes_on(check_pictures(source.images), extractor.value_ranges, source.root):
            say(one_line(f"note: {note}"))
    return [
        source.with_features(extractor.extract(source.images), info) if isinstance(source, Pictures) else source
        for source in sources
    ]


def _moved(features: Features, root: Path | None) -> Features:
    """The features of pictures that now lie in `root`, if one is given."""
    if root is None:
        return features
    require_directory(root, "give the folder of the gallery's pictures with --gallery-root")
    return dataclasses.replace(features, info=features.info | {"images": str(root.absolute())})


def _open(arguments: argparse.Namespace, content: Features | None, create: bool) -> AbstractContextManager:
    """Open the gallery for a search. content: its features, if they have been read."""
    name, root = arguments.gallery, arguments.gallery_root
    if name.startswith(MILVUS):
        from ms_vireid.search.milvus_gallery import MilvusGallery  # needs pymilvus, which is optional

        return closing(MilvusGallery(name.removeprefix(MILVUS), arguments.collection, create))
    if content is not None and arguments.index in (None, "exact"):
        return nullcontext(LocalGallery(name, _moved(content, root), None))
    from ms_vireid.search.faiss_index import build_index, load_index, save_index  # needs FAISS, which is optional

    if content is None:
        index, content = load_index(Path(name))
    else:
        index = build_index(arguments.index, content.features)
        if arguments.save_index:
            save_index(arguments.save_index, index, _moved(content, root))
            say(f"{arguments.save_index}: {index}")
    return nullcontext(LocalGallery(name, _moved(content, root), index))


def _search(gallery, queries: Features, arguments: argparse.Namespace) -> None:
    started_at = time.perf_counter()

    def search(count: int) -> list[list[Hit]]:
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


def _draw(results: list[SearchResult], path: Path, value_ranges: ValueRanges) -> None:
    # These need Matplotlib, which is optional.
    from ms_vireid.visualization.figure import save_figure
    from ms_vireid.visualization.sheet import draw_sheet

    figure, absent = draw_sheet(results[:SHOWN], value_ranges)
    save_figure(figure, path)
    shown = f", the first {SHOWN} of {len(results)} queries" if len(results) > SHOWN else ""
    missing = f", {absent} pictures are missing (--gallery-root?)" if absent else ""
    say(f"written: {path}{shown}{missing}")
