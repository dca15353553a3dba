"""Draw the papers' figures from a run, as PNG or SVG by the output's suffix. Needs `pip install -e '.[viz]'`."""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.arguments import SEED, Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, require_extra, run

if TYPE_CHECKING:
    from ms_vireid.data.folder_layout import PathLabels
    from ms_vireid.data.records import ImageSet, ReIDData
    from ms_vireid.search.trained_model import TrainedModel
    from ms_vireid.visualization.figure import Figure

_QUERIES = Bounds(1, 50, "a figure cannot show more: draw several")


def main() -> None:
    parser = Parser(__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", help="what to draw; each has its --help")
    for name, (add, _) in _KINDS.items():
        kind = kinds.add_parser(name, help=add.__doc__, description=add.__doc__)
        add(kind)
        kind.add_argument("--output", type=Path, required=True, metavar="F", help="the .png or .svg file to write")
    arguments = parser.parse_args()
    if arguments.kind == "ranking" and arguments.query:
        kinds.choices["ranking"].refuse(arguments, "--query names the queries", "--queries", "--choose")
    if arguments.kind == "curves" and len(arguments.run) == 1:
        kinds.choices["curves"].refuse(arguments, "curves of one run have no legend", "--labels")
    for name in ("images", "visible", "infrared", "query"):
        if pictures := getattr(arguments, name, None):
            _QUERIES.check(f"--{name}, pictures:", len(pictures))

    require_extra("visualize.py", "viz", "matplotlib", "sklearn")
    with at_once():
        from ms_vireid.files.writing import check_output
        from ms_vireid.visualization.figure import SUFFIXES, save_figure

    check_output(arguments.output, suffixes=SUFFIXES, reads=_files_read(arguments))
    _, draw = _KINDS[arguments.kind]
    save_figure(draw(arguments), arguments.output)
    say(f"written: {arguments.output}")


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
    _add_checkpoints(parser, "1", data=True, labels=False)
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
    _add_checkpoints(parser, "1", labels=False)
    _add_pictures(parser, "--visible", "visible pictures")
    _add_pictures(parser, "--infrared", "as many infrared pictures, of the same identities")


def _add_curves(parser: Parser) -> None:
    """loss terms, learning rates and metrics of one or more runs over their steps"""
    parser.add_argument("run", type=Path, nargs="+", metavar="R", help="run folder, or its metrics.jsonl")
    _add_labels(parser, "runs")


def _add_checkpoints(parser: Parser, count: str, data: bool = False, labels: bool = True) -> None:
    add_checkpoint(parser, f" ({count})", nargs="+")
    if labels:
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


def _files_read(arguments: Namespace) -> list[Path]:
    from ms_vireid.engine.run_folder import RunFolder
    from ms_vireid.search.start import files_read

    options = vars(arguments)
    named = [path for name in ("images", "visible", "infrared", "query", "run") for path in options.get(name) or ()]
    named += filter(None, [options.get("reference")])
    runs = [RunFolder(path) for path in options.get("run") or ()]
    named = [path for path in named if not path.is_dir()]
    return [*named, *files_read(*options.get("checkpoint") or ()), *(path for run in runs for path in run.files)]


def _read_data(arguments: Namespace, trained: "TrainedModel") -> "ReIDData":
    """Read the model's data set; raises InputError if --output lies in it."""
    from ms_vireid.engine.run_folder import RunFolder, check_outside_data

    _, data, _ = trained.test_set(arguments.data_root)
    check_outside_data(arguments.output, "--output", data, RunFolder(trained.path.parent))
    return data


def _gradcam(arguments: Namespace) -> "Figure":
    chosen = None if arguments.modality == "auto" else arguments.modality
    modalities = [chosen or _modality(path) for path in arguments.images]
    other = MODALITIES[1 - MODALITIES.index(modalities[0])]
    models, labels = _load(arguments, most=2)
    from ms_vireid.visualization import maps  # imports mindspore: after the device is set up

    pictures, heats, references = [], [], []
    for trained in models:
        path = arguments.reference
        reference = maps.Decoded.load(_alone(path, _modality(path, other)), 0, trained) if path else None
        references.append(reference)
        named = zip(arguments.images, modalities, strict=True)
        pictures.append([maps.Decoded.load(_alone(*one), 0, trained) for one in named])
        heats.append([maps.gradcam(trained.model, one, reference, arguments.relative) for one in pictures[-1]])
    if empty := sum(not heat.any() for row in heats for heat in row):
        say(f"note: {empty} of {len(heats) * len(heats[0])} maps are empty: no place raises the score; try --relative")
    return maps.draw_gradcam(pictures, heats, labels, references[0])


def _ranking(arguments: Namespace) -> "Figure":
    from ms_vireid.evaluation.evaluating import searched_features
    from ms_vireid.visualization.ranking import choose_queries, draw_ranking, find_queries, rank_queries

    ((trained,), _) = _load(arguments, most=1)
    data = _read_data(arguments, trained)
    features, trials = searched_features(trained.extractor, data, trained.config.evaluation)
    ranked = rank_queries(features, data.test, trials[0], data.protocol)
    if arguments.query:
        chosen = find_queries(ranked, data.test, arguments.query)
    else:
        chosen = choose_queries(ranked, arguments.queries, arguments.choose)
    return draw_ranking(chosen, data.test, trained.load_image)


def _similarity(arguments: Namespace) -> "Figure":
    from ms_vireid.visualization.similarity import draw_similarity, sample_similarities

    models, labels = _load(arguments)
    similarities = []
    for trained in models:
        test = _read_data(arguments, trained).test
        similarities.append(sample_similarities(trained.extractor.extract(test), test, arguments.seed, arguments.pairs))
    return draw_similarity(similarities, labels)


def _embedding(arguments: Namespace) -> "Figure":
    models, labels = _load(arguments, inference=False)
    from ms_vireid.visualization import embedding  # imports mindspore: after the device is set up

    data = _read_data(arguments, models[0])
    for trained, label in zip(models, labels, strict=True):
        if (stored := trained.record.get("data_checksum")) and not data.has_checksum(stored):
            say(f"note: {label}: was not trained on the pictures under {data.root}")
    chosen = getattr(data, arguments.split), arguments.identities, arguments.pictures
    pictures = embedding.choose_pictures(*chosen)  # of the same people for all
    samples = [embedding.sample(trained, pictures) for trained in models]
    titles = [f"{label}{_metrics(trained)}" for trained, label in zip(models, labels, strict=True)]
    return embedding.draw_embedding(samples, titles, arguments.dimensions, arguments.method)


def _metrics(trained: "TrainedModel") -> str:
    """The run's result as a line of a title; nothing if there is none of this checkpoint."""
    from ms_vireid.engine.run_folder import Result, RunFolder
    from ms_vireid.evaluation.metrics_table import COLUMNS
    from ms_vireid.files.checks import read_json

    path = RunFolder(trained.path.parent).result
    result = read_json(path, Result) if path.exists() else None
    if result is None or result.protocol.sha256 != trained.source()["sha256"]:
        return ""
    known = [name for name in ("rank1", "map") if name in result.trained]
    return "\n" + ", ".join(f"{COLUMNS[name]} {100 * result.trained[name]:.1f} %" for name in known)


def _features(arguments: Namespace) -> "Figure":
    if len(arguments.visible) != len(arguments.infrared):
        counts = f"{len(arguments.visible)} pictures and --infrared: {len(arguments.infrared)}"
        raise InputError(f"--visible: {counts}; give as many of each")
    ((trained,), _) = _load(arguments, most=1, inference=False)
    from ms_vireid.visualization import maps  # imports mindspore: after the device is set up

    pairs = [
        tuple(maps.Decoded.load(_alone(*one), 0, trained) for one in zip(paths, MODALITIES, strict=True))
        for paths in zip(arguments.visible, arguments.infrared, strict=True)
    ]
    return maps.draw_features(pairs, [maps.feature_maps(trained, *pair) for pair in pairs])


def _curves(arguments: Namespace) -> "Figure":
    from ms_vireid.visualization.curves import draw_curves, read_curves

    runs = [read_curves(path) for path in arguments.run]
    names = [(path if path.is_dir() else path.absolute().parent).resolve().name for path in arguments.run]
    return draw_curves(runs, _labels(arguments, names))


def _load(
    arguments: Namespace, most: int | None = None, inference: bool = True
) -> "tuple[list[TrainedModel], list[str]]":
    """Load the models of --checkpoint, at most `most` of them. Return them and their labels."""
    from ms_vireid.checkpoints.containers import weight_file
    from ms_vireid.search.start import start_inference

    count = len(arguments.checkpoint)
    if most is not None and count > most:
        raise InputError(f"--checkpoint: {count} given, {arguments.kind} takes at most {most}")
    files = list(map(weight_file, arguments.checkpoint))
    names = [path.absolute().parent.name for path in files]
    if len(set(names)) < len(names):
        names = [f"{name}/{path.stem}" for name, path in zip(names, files, strict=True)]
    labels = _labels(arguments, names)
    return start_inference(arguments, *files, inference=inference), labels


def _labels(arguments: Namespace, names: Sequence[str]) -> list[str]:
    from ms_vireid.visualization.figure import LONGEST_LABEL, shortened

    labels = getattr(arguments, "labels", None)  # figures of one model have none
    if labels and len(labels) != len(names):
        raise InputError(f"--labels: {len(labels)} given for {len(names)}; give one each")
    return [shortened(name, LONGEST_LABEL) for name in labels or names]


def _modality(path: Path, otherwise: str | None = None) -> str:
    """The modality that a picture's folders say, else `otherwise`; raises InputError if there is neither."""
    modality = _labels_of(path).modality or otherwise
    if modality is None:
        raise InputError(f"{path}: its folders do not say the modality; give --modality visible or infrared")
    return modality


def _alone(path: Path, modality: str) -> "ImageSet":
    from ms_vireid.data.records import image_set

    return image_set([(path.absolute(), -1, _labels_of(path).camera, modality == "infrared")])


def _labels_of(path: Path) -> "PathLabels":
    """What a picture's path says in a documented tree."""
    from ms_vireid.data.folder_layout import PathLabels, documented_layout

    layout = documented_layout(path.parent, [Path(path.name)])
    return layout.labels(path) if layout else PathLabels()


_KINDS = {  # by name: what adds its options, and what draws it
    "gradcam": (_add_gradcam, _gradcam),
    "ranking": (_add_ranking, _ranking),
    "similarity": (_add_similarity, _similarity),
    "embedding": (_add_embedding, _embedding),
    "features": (_add_features, _features),
    "curves": (_add_curves, _curves),
}


if __name__ == "__main__":
    run(main)
