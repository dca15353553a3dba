"""Draw the papers' figures from a run, as PNG or SVG by the output's suffix. Needs `pip install -e '.[viz]'`."""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
from pathlib import Path

from ms_vireid.command.arguments import SEED, Bounds
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, require_extra, run, work

_QUERIES = Bounds(1, 50, "a figure cannot show more: draw several")


def main() -> None:
    parser = Parser(__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", help="what to draw; each has its --help")
    for name, add in _KINDS.items():
        kind = kinds.add_parser(name, help=add.__doc__, description=add.__doc__)
        add(kind)
        kind.add_argument("--output", type=Path, required=True, metavar="F", help="the .png or .svg file to write")
    arguments = parser.parse_args()
    for name in ("images", "visible", "infrared", "query"):
        if pictures := getattr(arguments, name, None):
            _QUERIES.check(f"--{name}, pictures:", len(pictures))

    require_extra("visualize.py", "viz", "matplotlib", "sklearn")
    work("ms_vireid.tasks.visualize").main(arguments)


def _add_gradcam(parser: Parser) -> None:
    """Grad-CAM of pictures: where the score comes from, for one or two checkpoints"""
    _add_checkpoints(parser, "1 or 2")
    _add_pictures(parser, "--images", "the pictures to explain")
    parser.add_argument("--modality", choices=(*MODALITIES, "auto"), default="auto", help="auto: the folders say it")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="explain the similarity to this picture, which is of the other modality unless its folders say otherwise "
        "(default: explain the largest identity score)",
    )
    parser.add_argument(
        "--relative", action="store_true", help="measure from each map's mean instead of 0, so that no map is empty"
    )


def _add_ranking(parser: Parser) -> None:
    """the first ten hits of some queries, right ones with a green frame and a tick, wrong ones red and crossed"""
    _add_checkpoints(parser, "1", data=True)
    parser.add_number("--queries", _QUERIES, default=6, help="how many queries")
    parser.add_argument("--query", type=Path, nargs="+", metavar="FILE", help="use these test pictures as queries")
    parser.add_argument(
        "--choose",
        choices=("spread", "best", "worst"),
        default="spread",
        help="which queries: spread evenly over the first trial, or with the best or worst average precision",
    )


def _add_similarity(parser: Parser) -> None:
    """cosine similarities of positive and negative pairs across the modalities, and how much they overlap"""
    _add_checkpoints(parser, "1 or more", data=True)
    parser.add_number(
        "--pairs",
        Bounds(1, 1_000_000, "more do not change a histogram"),
        default=10_000,
        help="at most this many pairs of each kind",
    )
    parser.add_number("--seed", SEED, default=0, help="seed of the drawn pairs")


def _add_embedding(parser: Parser) -> None:
    """t-SNE or PCA of visible, infrared and (where the model makes them) auxiliary features of some identities"""
    _add_checkpoints(parser, "1 or more, drawn side by side with the pictures of the first one's set", data=True)
    parser.add_argument(
        "--method", choices=("tsne", "pca"), default="tsne", help="pca is quick, and distances keep their meaning"
    )
    parser.add_argument("--split", choices=("train", "test"), default="test", help="which identities")
    parser.add_number("--identities", Bounds(2, 10, "more colours cannot be told apart"), default=10, help="at most 10")
    parser.add_number(
        "--pictures",
        Bounds(1, 100, "more points than can be seen, and t-SNE takes minutes"),
        default=8,
        help="at most this many of each modality and identity",
    )
    parser.add_argument(
        "--dimensions", type=int, nargs="+", choices=(2, 3), default=(2, 3), help="a row of panels for each"
    )


def _add_features(parser: Parser) -> None:
    """feature maps of pairs of pictures after the first stage: F^v and F^r, and F^a if the model makes it"""
    _add_checkpoints(parser, "1")
    _add_pictures(parser, "--visible", "visible pictures")
    _add_pictures(parser, "--infrared", "as many infrared pictures, of the same identities")


def _add_curves(parser: Parser) -> None:
    """loss terms, learning rates and metrics of one or more runs over their steps"""
    parser.add_argument("run", type=Path, nargs="+", metavar="R", help="run folder, or its metrics.jsonl")
    _add_labels(parser, "runs")


def _add_checkpoints(parser: Parser, count: str, data: bool = False) -> None:
    add_checkpoint(parser, f" ({count})", nargs="+")
    _add_labels(parser, "checkpoints")
    add_inference(parser)
    if data:
        parser.add_argument("--data-root", metavar="D", help="folder of the data set (default: the run's)")


def _add_labels(parser: Parser, what: str) -> None:
    parser.add_argument(
        "--labels", nargs="+", metavar="NAME", help=f"what to call the {what} (default: by their folders)"
    )


def _add_pictures(parser: Parser, option: str, what: str) -> None:
    parser.add_argument(option, type=Path, nargs="+", required=True, metavar="FILE", help=what)


_KINDS = {
    "gradcam": _add_gradcam,
    "ranking": _add_ranking,
    "similarity": _add_similarity,
    "embedding": _add_embedding,
    "features": _add_features,
    "curves": _add_curves,
}


if __name__ == "__main__":
    run(main)
