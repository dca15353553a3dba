"""t-SNE or PCA of ten identities' features in two and three dimensions, for several checkpoints (MUN Fig. 4)."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from mindspore import Tensor
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from ms_vireid.command.errors import InputError
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.randomness import step_key
from ms_vireid.data.records import ImageSet
from ms_vireid.search.trained_model import TrainedModel
from ms_vireid.visualization.figure import IDENTITIES, MARKERS, PANELS_IN_ROW, add_legend, new_figure, shortened, styled
from ms_vireid.visualization.maps import require_finite

LETTERS = "ABCDEFGHIJ"
MOST_A_LINE = 7  # entries of the legend
PERPLEXITY = 15.0  # at most; a fifth of the points if that is less


class Sample(NamedTuple):
    """Features [N, C] with identities [N] and modalities [N]: "visible", "infrared" or "auxiliary"."""

    features: np.ndarray
    identities: np.ndarray
    modalities: np.ndarray


def choose_pictures(images: ImageSet, identities: int, pictures: int) -> ImageSet:
    """Choose `identities` identities, evenly over those with both modalities, and of each at most `pictures` a
    modality, as many visible as infrared. Sorted by identity, visible first. Raises InputError if none has both."""
    both = np.intersect1d(images.identities[images.infrared], images.identities[~images.infrared])
    if not len(both):
        raise InputError("no identity has visible and infrared pictures; give another data set with --data-root")
    chosen = both[np.unique(np.linspace(0, len(both) - 1, min(identities, len(both))).astype(int))]
    rows = []
    for identity in chosen:
        halves = [np.flatnonzero((images.identities == identity) & (images.infrared == r)) for r in (False, True)]
        count = min(pictures, *map(len, halves))
        rows += [half[np.linspace(0, len(half) - 1, count).astype(int)] for half in halves]
    return images.subset(np.concatenate(rows))


def sample(trained: TrainedModel, images: ImageSet) -> Sample:
    """Extract the features of chosen pictures (`choose_pictures`), and auxiliary ones if the model makes them."""
    people = np.array([images.name(i) for i in range(len(images))])
    pictures = Sample(trained.extractor.extract(images), people, np.where(images.infrared, "infrared", "visible"))
    if not trained.config.model.has_auxiliary:
        return pictures
    features = _auxiliary_features(trained, images)
    auxiliary = features, people[~images.infrared], np.full(len(features), "auxiliary")
    return Sample(*map(np.concatenate, zip(pictures, auxiliary, strict=True)))


def _auxiliary_features(trained: TrainedModel, images: ImageSet) -> np.ndarray:
    """Compute auxiliary features of pairs of the i-th visible and the i-th infrared picture: float32 [N / 2, C]."""
    key = Tensor(step_key(trained.config.seed, 0))
    halves = (images.subset(~images.infrared), images.subset(images.infrared))
    size, value_ranges = trained.config.evaluation.batch_size, trained.config.data.value_ranges
    batches = (EvaluationBatches(half, trained.image_size, size, value_ranges=value_ranges) for half in halves)
    rows = [
        trained.model.auxiliary_features((Tensor(visible), Tensor(infrared)), key).asnumpy()
        for (visible, _), (infrared, _) in zip(*batches, strict=True)
    ]
    features = np.concatenate(rows)
    require_finite(features, "auxiliary features")
    return features


def project(features: np.ndarray, dimensions: int, method: str = "tsne") -> np.ndarray:
    """Project to the principal components ("pca"), or by t-SNE, which starts from them (van der Maaten and Hinton
    2008): float32 [N, dimensions]. Raises InputError for fewer than five features."""
    if len(features) < 5:
        raise InputError(f"{len(features)} pictures are too few to project; choose more --identities or --pictures")
    if method == "pca":
        return PCA(dimensions, svd_solver="full").fit_transform(features)
    perplexity = min(PERPLEXITY, len(features) / 5)
    return TSNE(dimensions, perplexity=perplexity, init="pca", random_state=0).fit_transform(features)


@styled
def draw_embedding(
    samples: Sequence[Sample], titles: Sequence[str], dimensions: Sequence[int], method: str = "tsne"
) -> Figure:
    """Draw a panel for each checkpoint and number of dimensions, each projected by itself (see `project`).

    samples: of the same people in each. Shapes tell the modality, colours and, in 2-D, letters the identity.
    """
    groups = [[(one, title, size) for one, title in zip(samples, titles, strict=True)] for size in dimensions]
    if len(samples) == 1:
        groups = [list(itertools.chain(*groups))]
    rows = [group[i : i + PANELS_IN_ROW] for group in groups for i in range(0, len(group), PANELS_IN_ROW)]
    columns = max(map(len, rows))
    figure = new_figure(2.7 * columns + 0.2, 2.8 * len(rows) + 0.2)
    for line, row in enumerate(rows):
        for place, (one, title, size) in enumerate(row, line * columns + 1):
            axes = figure.add_subplot(len(rows), columns, place, projection="3d" if size == 3 else None)
            _scatter(axes, project(one.features, size, method), one)
            axes.set_title(title)
            if method == "pca" and size == 2:  # whose distances are those of the features
                axes.set_aspect("equal", "datalim")
    present = [name for name in MARKERS if any((one.modalities == name).any() for one in samples)]
    shapes = [Line2D([], [], marker=MARKERS[n], color="0.35", linestyle="", markersize=5, label=n) for n in present]
    people = zip(IDENTITIES, LETTERS, np.unique(samples[0].identities), strict=False)
    shapes += [Patch(color=colour, label=f"{letter}: {shortened(name)}") for colour, letter, name in people]
    add_legend(figure, shapes, MOST_A_LINE)
    return figure


def _scatter(axes, points: np.ndarray, one: Sample) -> None:
    for colour, letter, identity in zip(IDENTITIES, LETTERS, np.unique(one.identities), strict=False):
        ink = "white" if sum(to_rgb(colour)) < 1.75 else "black"
        depth = {"depthshade": False} if points.shape[1] == 3 else {}
        for modality, marker in MARKERS.items():
            chosen = points[(one.identities == identity) & (one.modalities == modality)]
            axes.scatter(*chosen.T, s=34, marker=marker, facecolor=colour, edgecolor="white", linewidth=0.4, **depth)
            for point in chosen if points.shape[1] == 2 else ():  # in 3-D, letters behind would cover those in front
                axes.text(*point, letter, color=ink, fontsize=4, ha="center", va="center_baseline", clip_on=True)
    axes.set_xticks([])
    axes.set_yticks([])
    if points.shape[1] == 3:
        axes.set_zticks([])
        axes.set_box_aspect((1, 1, 1), zoom=1.2)
        return
    for spine in axes.spines.values():  # a plain frame: the axes mean nothing
        spine.set(visible=True, color="0.7")
