"""Maps over pictures: Grad-CAM (PMT Fig. 7, MUN Fig. 5), and feature maps of the first stage (MUN Fig. 5)."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mindspore import Tensor, nn, ops

from ms_vireid.backends.replacing import as_written
from ms_vireid.command.errors import InputError
from ms_vireid.command.names import MODALITIES
from ms_vireid.data.randomness import step_key
from ms_vireid.data.records import ImageSet
from ms_vireid.data.transforms import normalise
from ms_vireid.models.base import ReIDModel
from ms_vireid.search.trained_model import TrainedModel
from ms_vireid.visualization.figure import HEAT, add_bar, new_figure, show_picture, styled

SYMBOLS = {"visible": "$F^v$", "infrared": "$F^r$", "auxiliary": "$F^a$"}


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded picture, uint8 [H, W, 3], with its name and modality ("visible" or "infrared")."""

    pixels: np.ndarray
    modality: str
    name: str

    @classmethod
    def load(cls, images: ImageSet, index: int, trained: TrainedModel) -> "Decoded":
        """Decode a picture of a set for a model. Raises InputError if that fails."""
        modality = MODALITIES[int(images.infrared[index])]
        return cls(trained.load_image(images, index), modality, images.paths[index].name)

    @property
    def batch(self) -> Tensor:
        """float32 [1, 3, H, W]"""
        return Tensor(normalise(self.pixels)[None], ms.float32)


@contextmanager
def hooked(cell: nn.Cell, hook: Callable):
    """Call `hook(cell, inputs, output)` after each call of the cell; its result, if not None, replaces the output."""
    handle = cell.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def output_of(cell: nn.Cell, run: Callable[[], object]) -> Tensor:
    """Return the output of `cell` within `run()`."""
    outputs = []
    with hooked(cell, lambda _cell, _inputs, output: outputs.append(output)):
        run()
    return outputs[-1]


def at_pixels(model: ReIDModel, cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate a map [rows, columns] between the centres of its cells, bilinearly: float [H, W]."""
    starts, steps = model.cells_in_picture(size, cells.shape)
    for axis, (start, step) in enumerate(zip(starts, steps, strict=True)):
        centres = start + step * np.arange(cells.shape[axis])
        pixels = np.arange(size[axis]) + 0.5
        cells = np.apply_along_axis(lambda line, c=centres, p=pixels: np.interp(p, c, line), axis, cells)
    return cells


def require_finite(values: np.ndarray, name: str) -> None:
    """Raise InputError unless all values are finite."""
    if not np.isfinite(values).all():
        raise InputError(f"{name}: the values to draw are not finite; check the checkpoint and the picture")


def gradcam(model: ReIDModel, picture: Decoded, reference: Decoded | None = None, relative: bool = False) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017): the parts of the picture that raise the score, float32 [H, W] in 0..1.

    The score is what retrieval compares: the inner product with the L2-normalised feature of a `reference` of either
    modality. Without one it is the largest logit of the classifier (of the picture's modality). With A the model's
    last maps and g the score's gradient, the map is ReLU(sum_c mean(g_c) A_c), divided by its maximum. The BNNeck
    subtracts the mean picture's feature, so a score may rise where all of A falls; the map is then empty. `relative`
    subtracts the mean over the picture before the ReLU, which shows what stands out.

    Raises:
        InputError: the map is not finite.
    """
    cell, images = model.last_map(), picture.batch

    def features() -> Tensor:
        return model(images, picture.modality)

    def logits() -> Tensor:
        cell, classifier = model.logits_of(picture.modality)
        return classifier(output_of(cell, features))[0]

    with as_written(model):  # a backend may compute several cells as one
        maps = output_of(cell, features)
        if reference is None:
            identity = int(logits().argmax())
        else:
            target = model(reference.batch, reference.modality)  # [1, C]

        def score(change: Tensor) -> Tensor:
            """The score after adding `change` to the maps: its gradient at 0 is theirs."""
            with hooked(cell, lambda _cell, _inputs, output: output + change):
                return logits()[identity] if reference is None else (features() * target).sum()

        gradient = model.as_maps(ms.grad(score)(ops.zeros_like(maps)).asnumpy())[0]  # [C, rows, columns]
    weights = gradient.mean(axis=(1, 2), keepdims=True)
    heat = (weights * model.as_maps(maps.asnumpy())[0]).sum(axis=0)
    require_finite(heat, picture.name)
    heat = np.maximum(heat - heat.mean() if relative else heat, 0)
    heat = at_pixels(model, heat, picture.pixels.shape[:2])
    return (heat / max(heat.max(), np.finfo(np.float32).tiny)).astype(np.float32)


def overlay(picture: Decoded, heat: np.ndarray) -> np.ndarray:
    """Lay the map over the picture in gray: uint8 [H, W, 3]."""
    opacity = (0.3 + 0.4 * heat)[..., None]
    gray = picture.pixels.mean(axis=2, keepdims=True)
    mixed = (1 - opacity) * gray + opacity * 255 * colormaps[HEAT](heat)[..., :3]
    return mixed.round().astype(np.uint8)


@styled
def draw_gradcam(
    pictures: Sequence[Sequence[Decoded]],
    heats: Sequence[Sequence[np.ndarray]],
    labels: Sequence[str],
    reference: Decoded | None = None,
) -> Figure:
    """Draw a column for each picture: itself, then each checkpoint's map over it in gray.

    pictures: [checkpoint][picture], at each checkpoint's size; the first row is shown. heats: [checkpoint][picture].
    reference: shown first; None if the maps explain identity scores.
    """
    first = 0 if reference is None else 1
    rows, columns = 1 + len(labels), first + len(pictures[0])
    height, width = pictures[0][0].pixels.shape[:2]
    side = 0.85  # inches
    figure = new_figure(columns * side + 1.1, rows * 0.95 * side * height / width + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    if reference is not None:
        show_picture(grid[0, 0], reference.pixels, f"reference\n({reference.modality})")
        for axes in grid[1:, 0]:
            axes.set_axis_off()
    for axes, picture in zip(grid[0, first:], pictures[0], strict=True):
        show_picture(axes, picture.pixels, picture.modality)
    for line, label, row, maps in zip(grid[1:], labels, pictures, heats, strict=True):
        for axes, picture, heat in zip(line[first:], row, maps, strict=True):
            show_picture(axes, overlay(picture, heat))
        line[first].set_ylabel(label)
    label = "share in the largest identity score" if reference is None else "share in the similarity"
    add_bar(figure, ScalarMappable(Normalize(0, 1), HEAT), label, ("none", "most"), shrink=0.5, aspect=25)
    return figure


def feature_maps(trained: TrainedModel, visible: Decoded, infrared: Decoded) -> dict[str, np.ndarray]:
    """Average the first stage's maps over channels: float32 [rows, columns] by modality, with the pair's "auxiliary" if
    the model makes it."""
    model, outputs = trained.model, {}
    for picture in (visible, infrared):
        cell = model.first_map(picture.modality)
        with as_written(model):
            outputs[picture.modality] = output_of(cell, lambda p=picture: model(p.batch, p.modality))
    if trained.config.model.has_auxiliary:
        key = Tensor(step_key(trained.config.seed, 0))
        maps = outputs["visible"], outputs["infrared"]
        outputs["auxiliary"] = model.generator((visible.batch, infrared.batch), maps, key)
    means = {name: model.as_maps(output.asnumpy())[0].mean(axis=0) for name, output in outputs.items()}
    for name, mean in means.items():
        require_finite(mean, name)
    return means


@styled
def draw_features(pairs: Sequence[tuple[Decoded, Decoded]], maps: Sequence[dict[str, np.ndarray]]) -> Figure:
    """Draw a row for each pair: the visible picture and its map, the infrared one and its map, the auxiliary map. The
    colours span each map's range."""
    columns = 4 + any("auxiliary" in means for means in maps)
    height, width = pairs[0][0].pixels.shape[:2]
    side = 0.95  # inches
    figure = new_figure(columns * side + 0.9, len(pairs) * side * height / width + 0.35)
    grid = figure.subplots(len(pairs), columns, squeeze=False)
    frame = {"cmap": HEAT, "extent": (0, width, height, 0), "interpolation": "nearest"}
    for row, (pair, means) in enumerate(zip(pairs, maps, strict=True)):
        places, titled = iter(grid[row]), row == 0
        for name, mean in means.items():
            if picture := next((one for one in pair if one.modality == name), None):
                show_picture(next(places), picture.pixels, name if titled else "")
            image = show_picture(next(places), mean, SYMBOLS[name] if titled else "", **frame)
            image.axes.title.set_parse_math(True)
    ends = "least", "most"
    add_bar(figure, image, "mean over the channels", ends, shrink=min(1.0, 1.6 / len(pairs)), aspect=20)
    return figure
