"""The pictures of both papers from a run: PNG or SVG, by the output's suffix. Needs `pip install -e '.[viz]'`."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.numbers import NUMBERS
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_checkpoint, add_inference, require_extra, run
from ms_vireid.files.writing import check_output


def main() -> None:
    parser = Parser(__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", help="what to draw; each has its --help")
    for name, (add, _) in _KINDS.items():
        kind = kinds.add_parser(name, help=add.__doc__, description=add.__doc__)
        add(kind)
        kind.add_argument("--output", type=Path, required=True, metavar="F", help="the .png or .svg file to write")
    arguments = parser.parse_args()
    for name in ("images", "visible", "infrared", "query"):
        if pictures := getattr(arguments, name, None):
            NUMBERS["visualize --queries"].check(f"--{name}, pictures:", len(pictures))

    require_extra("visualize.py", "viz", "matplotlib", "sklearn")
    from ms_vireid.inference import start_inference
    from ms_vireid.visualization.figure import SUFFIXES, save_figure

    check_output(arguments.output, suffixes=SUFFIXES, reads=_files_read(arguments))
    if arguments.kind != "curves":
        arguments.program = start_inference(arguments, *arguments.checkpoint)
    figure = _KINDS[arguments.kind][1](arguments)
    save_figure(figure, arguments.output)
    say(f"written: {arguments.output}")


def _files_read(arguments: Namespace) -> list[Path]:
    """Those that options name, and the runs' own."""
    from ms_vireid.engine.run_folder import RunFolder
    from ms_vireid.inference import files_read

    given = vars(arguments)
    named = [path for name in ("images", "visible", "infrared", "query", "run") for path in given.get(name) or ()]
    named += filter(None, [given.get("reference")])
    runs = [RunFolder(path) for path in given.get("run") or ()]
    named = [path for path in named if not path.is_dir()]
    return [*named, *files_read(*given.get("checkpoint") or ()), *(path for run in runs for path in run.files)]


def _read_data(arguments: Namespace, trained):
    from ms_vireid.engine.run_folder import RunFolder, check_apart_from_data

    data = trained.read_data(arguments.data_root)
    check_apart_from_data(arguments.output, "--output", data, RunFolder(trained.path.parent))
    return data


def _add_gradcam(parser: Parser) -> None:
    """Grad-CAM of given pictures: where the score comes from, for one or two checkpoints"""
    _add_checkpoints(parser, "1 or 2")
    _add_pictures(parser, "--images", "the pictures to explain")
    parser.add_argument("--modality", choices=(*MODALITIES, "auto"), default="auto", help="auto: what the folders say")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="explain the similarity to this picture, of the other modality unless its folders say otherwise; without "
        "it, the largest identity score",
    )
    parser.add_argument("--relative", action="store_true", help="count from each map's mean instead of 0: never empty")


def _gradcam(arguments: Namespace):
    from ms_vireid.visualization.maps import Decoded, draw_gradcam, gradcam

    chosen = None if arguments.modality == "auto" else arguments.modality
    modalities = [chosen or _modality(path) for path in arguments.images]
    other = MODALITIES[1 - MODALITIES.index(modalities[0])]
    models, labels = _load(arguments, most=2)
    pictures, heats, references = [], [], []
    for trained in models:
        size, given = trained.image_size, arguments.reference
        own = [Decoded.load(path, m, size) for path, m in zip(arguments.images, modalities, strict=True)]
        references.append(Decoded.load(given, _modality(given, other), size) if given else None)
        pictures.append(own)
        heats.append([gradcam(trained.model, picture, references[-1], arguments.relative) for picture in own])
    if empty := sum(not heat.any() for maps in heats for heat in maps):
        say(f"note: {empty} of {len(heats) * len(heats[0])} maps are empty: no place raises the score; try --relative")
    return draw_gradcam(pictures, heats, labels, references[0])


def _add_ranking(parser: Parser) -> None:
    """the first ten of some queries' rankings, right ones with a green frame and a tick, others red and crossed"""
    _add_checkpoints(parser, "1", data=True)
    parser.add_number("visualize --queries", default=6, help="how many queries")
    parser.add_argument("--query", type=Path, nargs="+", metavar="FILE", help="these test pictures are the queries")
    parser.add_argument(
        "--choose",
        choices=("spread", "best", "worst"),
        default="spread",
        help="which queries: spread evenly over the first trial, or with the best or worst average precision",
    )


def _ranking(arguments: Namespace):
    from ms_vireid.inference.evaluating import searched_features
    from ms_vireid.visualization.ranked import choose_queries, draw_ranking, find_queries, rank_queries

    ((trained,), _) = _load(arguments, most=1)
    data = _read_data(arguments, trained)
    features, trials = searched_features(trained.extractor, data, trained.config.evaluation)
    ranked = rank_queries(features, data.test, trials[0], data.protocol)
    if arguments.query:
        chosen = find_queries(ranked, data.test, arguments.query)
    else:
        chosen = choose_queries(ranked, arguments.queries, arguments.choose)
    return draw_ranking(chosen, data.test, trained.image_size)


def _add_similarity(parser: Parser) -> None:
    """cosine similarities of positive and negative pairs across the modalities, with the area of their overlap"""
    _add_checkpoints(parser, "1 or more", data=True)
    parser.add_number("visualize --pairs", default=10_000, help="at most this many pairs of each kind")
    parser.add_number("visualize --seed", default=0, help="seed of the drawn pairs")


def _similarity(arguments: Namespace):
    from ms_vireid.visualization.similarity import draw_similarity, sample_similarities

    models, labels = _load(arguments)
    similarities = []
    for trained in models:
        test = _read_data(arguments, trained).test
        similarities.append(sample_similarities(trained.extractor.extract(test), test, arguments.seed, arguments.pairs))
    return draw_similarity(similarities, labels)


def _add_embedding(parser: Parser) -> None:
    """t-SNE of visible, infrared and (where the model makes them) auxiliary features of some identities"""
    _add_checkpoints(parser, "1 or more, for example of several epochs", data=True)
    parser.add_argument("--split", choices=("train", "test"), default="test", help="whose identities")
    parser.add_number("visualize --identities", default=10, help="at most 10")
    parser.add_number("visualize --pictures", default=8, help="at most this many of each modality and identity")
    parser.add_argument(
        "--dimensions", type=int, nargs="+", choices=(2, 3), default=(2, 3), help="a row of panels each"
    )


def _embedding(arguments: Namespace):
    from ms_vireid.visualization.embedding import choose_pictures, draw_embedding, sample

    models, labels = _load(arguments, inference=False)
    samples = []
    for trained in models:
        images = getattr(_read_data(arguments, trained), arguments.split)
        samples.append(sample(trained, choose_pictures(images, arguments.identities, arguments.pictures)))
    return draw_embedding(samples, labels, arguments.dimensions)


def _add_features(parser: Parser) -> None:
    """maps after the first stage of pairs of pictures: F^v and F^r, and F^a where the model makes it"""
    _add_checkpoints(parser, "1")
    _add_pictures(parser, "--visible", "visible pictures")
    _add_pictures(parser, "--infrared", "as many infrared pictures, of the same identities")


def _features(arguments: Namespace):
    from ms_vireid.visualization.maps import Decoded, draw_features, feature_maps

    if len(arguments.visible) != len(arguments.infrared):
        given = f"{len(arguments.visible)} pictures and --infrared: {len(arguments.infrared)}"
        raise InputError(f"--visible: {given}; give as many of each")
    ((trained,), _) = _load(arguments, most=1, inference=False)
    size = trained.image_size
    pairs = [
        (Decoded.load(visible, "visible", size), Decoded.load(infrared, "infrared", size))
        for visible, infrared in zip(arguments.visible, arguments.infrared, strict=True)
    ]
    return draw_features(pairs, [feature_maps(trained, *pair) for pair in pairs])


def _add_curves(parser: Parser) -> None:
    """loss terms, learning rates and metrics of one or more runs over their steps"""
    parser.add_argument("run", type=Path, nargs="+", metavar="R", help="run folder, or its metrics.jsonl")
    _add_labels(parser, "runs")


def _curves(arguments: Namespace):
    from ms_vireid.visualization.curves import draw_curves, read_curves

    runs = [read_curves(path) for path in arguments.run]
    names = [(path if path.is_dir() else path.absolute().parent).resolve().name for path in arguments.run]
    return draw_curves(runs, _labels(arguments, names))


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


def _load(arguments: Namespace, most: int | None = None, inference: bool = True) -> tuple[list, list[str]]:
    """The models of --checkpoint, at most so many, and what to call them."""
    from ms_vireid.inference import checkpoint_file
    from ms_vireid.inference.trained import load_trained

    count = len(arguments.checkpoint)
    if most is not None and count > most:
        raise InputError(f"--checkpoint: {count} given, {arguments.kind} takes at most {most}")
    files = list(map(checkpoint_file, arguments.checkpoint))
    names = [path.absolute().parent.name for path in files]
    if len(set(names)) < len(names):
        names = [f"{name}/{path.stem}" for name, path in zip(names, files, strict=True)]
    labels = _labels(arguments, names)
    return load_trained(files, arguments.program, inference), labels


def _labels(arguments: Namespace, names: Sequence[str]) -> list[str]:
    if arguments.labels and len(arguments.labels) != len(names):
        raise InputError(f"--labels: {len(arguments.labels)} given for {len(names)}; give one each")
    from ms_vireid.visualization.figure import LONGEST_LABEL, shortened

    return [shortened(name, LONGEST_LABEL) for name in arguments.labels or names]


def _modality(path: Path, otherwise: str | None = None) -> str:
    """What a picture's folders say, else `otherwise`."""
    from ms_vireid.data.folders import modality_of

    said = modality_of(list(path.absolute().parts[:-1])) or otherwise
    if said is None:
        raise InputError(f"{path}: its folders say no modality; give --modality visible or infrared")
    return said


_KINDS: dict[str, tuple[Callable, Callable]] = {
    "gradcam": (_add_gradcam, _gradcam),
    "ranking": (_add_ranking, _ranking),
    "similarity": (_add_similarity, _similarity),
    "embedding": (_add_embedding, _embedding),
    "features": (_add_features, _features),
    "curves": (_add_curves, _curves),
}


if __name__ == "__main__":
    run(main)
