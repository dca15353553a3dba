"""Feature maps after the first stage, as the mean over their channels: F^v, F^r and F^a of MUN (Fig. 5)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from mindspore import Tensor

from ms_vireid.data.randomness import step_key
from ms_vireid.inference.trained import TrainedModel
from ms_vireid.visualization.figure import HEAT, add_bar, new_figure, show_picture, styled
from ms_vireid.visualization.gradcam import Decoded, output_of, require_finite

SYMBOLS = {"visible": "$F^v$", "infrared": "$F^r$", "auxiliary": "$F^a$"}


def feature_maps(trained: TrainedModel, visible: Decoded, infrared: Decoded) -> dict[str, np.ndarray]:
    """By modality the mean over channels, float32 [rows, columns]; "auxiliary" of the pair where the model makes it."""
    model, outputs = trained.model, {}
    for picture in (visible, infrared):
        cell = model.first_map(picture.modality)
        outputs[picture.modality] = output_of(cell, lambda p=picture: model(p.batch, p.modality))
    if model.has_auxiliary():
        key = Tensor(step_key(trained.config.seed, 0))
        maps = outputs["visible"], outputs["infrared"]
        outputs["auxiliary"] = model.auxiliary_maps((visible.batch, infrared.batch), maps, key)
    means = {name: model.as_maps(output.asnumpy())[0].mean(axis=0) for name, output in outputs.items()}
    for name, mean in means.items():
        require_finite(mean, name)
    return means


@styled
def draw_features(pairs: Sequence[tuple[Decoded, Decoded]], maps: Sequence[dict[str, np.ndarray]]) -> Figure:
    """A row for each pair: the visible picture and its map, the infrared one and its map, the auxiliary map.

    Each map has the whole range of the colours, from its smallest value to its largest.
    """
    has_auxiliary = any("auxiliary" in held for held in maps)
    columns = 4 + has_auxiliary
    height, width = pairs[0][0].pixels.shape[:2]
    side = 0.95  # inches
    figure = new_figure(columns * side + 0.9, len(pairs) * side * height / width + 0.35)
    grid = figure.subplots(len(pairs), columns, squeeze=False)
    frame = {"cmap": HEAT, "extent": (0, width, height, 0), "interpolation": "nearest"}
    for row, (pair, held) in enumerate(zip(pairs, maps, strict=True)):
        places, titled = iter(grid[row]), row == 0
        for name, mean in held.items():
            if picture := next((one for one in pair if one.modality == name), None):
                show_picture(next(places), picture.pixels, name if titled else "")
            image = show_picture(next(places), mean, SYMBOLS[name] if titled else "", **frame)
    ends = "least", "most"
    add_bar(figure, image, "mean over the channels", ends, shrink=min(1.0, 1.6 / len(pairs)), aspect=20)
    return figure
