"""Search a gallery for given pictures or features, and show the most similar ones as a table, JSON or a contact sheet.

The gallery is a feature file from ms_vireid/extract.py (.npz), a folder of pictures, an index saved by --save-index
(.index), or a Milvus collection: milvus:PATH.db is embedded, milvus:http://HOST:PORT is on a server.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from argparse import Namespace
from pathlib import Path

from ms_vireid.command.arguments import SIMILARITY, Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import INDEX, MILVUS, MODALITIES
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, add_layout, require_extra, run, work
from ms_vireid.files.writing import check_output

FAISS = ("flat", "ivf")  # of --index


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
    _check(arguments)
    work("ms_vireid.tasks.retrieve").main(arguments)


def _check(arguments: Namespace) -> None:
    """Raise InputError for options that do not go together, and for an extra that is not installed."""
    in_milvus, saved = arguments.gallery.startswith(MILVUS), Path(arguments.gallery).suffix.lower() == INDEX
    if not (arguments.query or arguments.add or arguments.save_index):
        raise InputError("nothing to do: give --query, --add or --save-index; see --help")
    for name in ("sheet", "json"):
        if getattr(arguments, name) and not arguments.query:
            raise InputError(f"--{name} {getattr(arguments, name)}: needs --query; give one, or leave it out")
    if arguments.rerank and (in_milvus or saved or arguments.index in FAISS or arguments.camera):
        raise InputError("--rerank: takes features or pictures, without an index and without --camera")
    if arguments.add and not in_milvus:
        raise InputError(f"--add {arguments.add}: only for a gallery in Milvus ({MILVUS}PATH.db or {MILVUS}http://...)")
    if arguments.save_index and (in_milvus or saved or arguments.index in (None, "exact")):
        raise InputError(f"--save-index {arguments.save_index}: needs features and --index flat or ivf")
    if arguments.index and saved:
        raise InputError(f"--index {arguments.index}: {arguments.gallery} is an index already; leave it out")
    if arguments.index == "ivf" and in_milvus:
        raise InputError("--index ivf: is FAISS's; in Milvus give --index hnsw")
    if arguments.index == "hnsw" and not in_milvus:
        raise InputError("--index hnsw: is Milvus's; for other galleries give --index ivf")
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


if __name__ == "__main__":
    run(main)
