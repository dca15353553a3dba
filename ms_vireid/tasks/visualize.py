"""The figures of a run."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.command.printing import say
from ms_vireid.data.folder_layout import PathLabels, documented_layout
from ms_vireid.data.records import ImageSet, ReIDData, image_set
from ms_vireid.engine.run_folder import Result, RunFolder, check_outside_data
from ms_vireid.evaluation.evaluating import searched_features
from ms_vireid.evaluation.metrics_table import COLUMNS
from ms_vireid.files.checks import read_json
from ms_vireid.files.writing import check_output
from ms_vireid.search.start import checkpoint_file, files_read, load_trained, start_inference
from ms_vireid.visualization.curves import draw_curves, read_curves
from ms_vireid.visualization.figure import LONGEST_LABEL, SUFFIXES, Figure, save_figure, shortened
from ms_vireid.visualization.ranking import choose_queries, draw_ranking, find_queries, rank_queries
from ms_vireid.visualization.similarity import draw_similarity, sample_similarities

if TYPE_CHECKING:
    from ms_vireid.search.trained_model import TrainedModel


def main(arguments: argparse.Namespace) -> None:
    check_output(arguments.output, suffixes=SUFFIXES, reads=_files_read(arguments))
    if arguments.kind != "curves":
        arguments.backend = start_inference(arguments, *arguments.checkpoint)
    figure = _DRAW[arguments.kind](arguments)
    save_figure(figure, arguments.output)
    say(f"written: {arguments.output}")


def _files_read(arguments: argparse.Namespace) -> list[Path]:
    """The files that options name, and those of their runs."""
    options = vars(arguments)
    named = [path for name in ("images", "visible", "infrared", "query", "run") for path in options.get(name) or ()]
    named += filter(None, [options.get("reference")])
    runs = [RunFolder(path) for path in options.get("run") or ()]
    named = [path for path in named if not path.is_dir()]
    return [*named, *files_read(*options.get("checkpoint") or ()), *(path for run in runs for path in run.files)]


def _read_data(arguments: argparse.Namespace, trained: "TrainedModel") -> ReIDData:
    """Read the model's data set; raises InputError if --output lies in it."""
    _, data, _ = trained.test_set(arguments.data_root)
    check_outside_data(arguments.output, "--output", data, RunFolder(trained.path.parent))
    return data


def _gradcam(arguments: argparse.Namespace) -> Figure:
    from ms_vireid.visualization import maps  # imports mindspore: after the device is set up

    chosen = None if arguments.modality == "auto" else arguments.modality
    modalities = [chosen or _modality(path) for path in arguments.images]
    other = MODALITIES[1 - MODALITIES.index(modalities[0])]
    models, labels = _load(arguments, most=2)
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


def _ranking(arguments: argparse.Namespace) -> Figure:
    ((trained,), _) = _load(arguments, most=1)
    data = _read_data(arguments, trained)
    features, trials = searched_features(trained.extractor, data, trained.config.evaluation)
    ranked = rank_queries(features, data.test, trials[0], data.protocol)
    if arguments.query:
        chosen = find_queries(ranked, data.test, arguments.query)
    else:
        chosen = choose_queries(ranked, arguments.queries, arguments.choose)
    return draw_ranking(chosen, data.test, trained.load_image)


def _similarity(arguments: argparse.Namespace) -> Figure:
    models, labels = _load(arguments)
    similarities = []
    for trained in models:
        test = _read_data(arguments, trained).test
        similarities.append(sample_similarities(trained.extractor.extract(test), test, arguments.seed, arguments.pairs))
    return draw_similarity(similarities, labels)


def _embedding(arguments: argparse.Namespace) -> Figure:
    from ms_vireid.visualization import embedding  # imports mindspore: after the device is set up

    models, labels = _load(arguments, inference=False)
    data = _read_data(arguments, models[0])
    for trained, label in zip(models, labels, strict=True):
        if trained.record.get("data_checksum", data.checksum) != data.checksum:
            say(f"note: {label}: was not trained on the pictures under {data.root}")
    chosen = getattr(data, arguments.split), arguments.identities, arguments.pictures
    pictures = embedding.choose_pictures(*chosen)  # of the same people for all
    samples = [embedding.sample(trained, pictures) for trained in models]
    titles = [f"{label}{_metrics(trained)}" for trained, label in zip(models, labels, strict=True)]
    return embedding.draw_embedding(samples, titles, arguments.dimensions, arguments.method)


def _metrics(trained: "TrainedModel") -> str:
    """The run's result as a line of a title; nothing if there is none of this checkpoint."""
    path = RunFolder(trained.path.parent).result
    result = read_json(path, Result) if path.exists() else None
    if result is None or result.protocol.sha256 != trained.source()["sha256"]:
        return ""
    known = [name for name in ("rank1", "map") if name in result.trained]
    return "\n" + ", ".join(f"{COLUMNS[name]} {100 * result.trained[name]:.1f} %" for name in known)


def _features(arguments: argparse.Namespace) -> Figure:
    from ms_vireid.visualization import maps  # imports mindspore: after the device is set up

    if len(arguments.visible) != len(arguments.infrared):
        counts = f"{len(arguments.visible)} pictures and --infrared: {len(arguments.infrared)}"
        raise InputError(f"--visible: {counts}; give as many of each")
    ((trained,), _) = _load(arguments, most=1, inference=False)
    pairs = [
        tuple(maps.Decoded.load(_alone(*one), 0, trained) for one in zip(paths, MODALITIES, strict=True))
        for paths in zip(arguments.visible, arguments.infrared, strict=True)
    ]
    return maps.draw_features(pairs, [maps.feature_maps(trained, *pair) for pair in pairs])


def _curves(arguments: argparse.Namespace) -> Figure:
    runs = [read_curves(path) for path in arguments.run]
    names = [(path if path.is_dir() else path.absolute().parent).resolve().name for path in arguments.run]
    return draw_curves(runs, _labels(arguments, names))


def _load(
    arguments: argparse.Namespace, most: int | None = None, inference: bool = True
) -> "tuple[list[TrainedModel], list[str]]":
    """Load the models of --checkpoint, at most `most` of them. Return them and their labels."""
    count = len(arguments.checkpoint)
    if most is not None and count > most:
        raise InputError(f"--checkpoint: {count} given, {arguments.kind} takes at most {most}")
    files = list(map(checkpoint_file, arguments.checkpoint))
    names = [path.absolute().parent.name for path in files]
    if len(set(names)) < len(names):
        names = [f"{name}/{path.stem}" for name, path in zip(names, files, strict=True)]
    labels = _labels(arguments, names)
    return load_trained(files, arguments.backend, inference), labels


def _labels(arguments: argparse.Namespace, names: Sequence[str]) -> list[str]:
    if arguments.labels and len(arguments.labels) != len(names):
        raise InputError(f"--labels: {len(arguments.labels)} given for {len(names)}; give one each")
    return [shortened(name, LONGEST_LABEL) for name in arguments.labels or names]


def _modality(path: Path, otherwise: str | None = None) -> str:
    """The modality that a picture's folders say, else `otherwise`; raises InputError if there is neither."""
    modality = _labels_of(path).modality or otherwise
    if modality is None:
        raise InputError(f"{path}: its folders do not say the modality; give --modality visible or infrared")
    return modality


def _alone(path: Path, modality: str) -> ImageSet:
    """The set of one picture."""
    return image_set([(path.absolute(), -1, _labels_of(path).camera, modality == "infrared")])


def _labels_of(path: Path) -> PathLabels:
    """What a picture's path says in a documented tree."""
    layout = documented_layout(path.parent, [Path(path.name)])
    return layout.labels(path) if layout else PathLabels()


_DRAW = {
    "gradcam": _gradcam,
    "ranking": _ranking,
    "similarity": _similarity,
    "embedding": _embedding,
    "features": _features,
    "curves": _curves,
}
