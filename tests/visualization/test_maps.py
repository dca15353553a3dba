"""Feature maps after the first stage."""

import numpy as np
import pytest
from mindspore import Tensor

from ms_vireid.data.transforms import load_image
from ms_vireid.search.start import load_trained
from ms_vireid.visualization.maps import Decoded, draw_features, feature_maps


def pair(data, size):
    index = [np.flatnonzero(data.test.infrared == infrared)[0] for infrared in (False, True)]
    return tuple(
        Decoded(load_image(data.test.paths[i], size), modality, "")
        for i, modality in zip(index, ("visible", "infrared"), strict=True)
    )


@pytest.mark.parametrize(
    ("family", "shape", "modalities"),
    [
        ("pmt", (7, 3), ["visible", "infrared"]),  # patches of 8 pixels, every 6
        ("agw", (12, 6), ["visible", "infrared"]),
        ("mun", (12, 6), ["visible", "infrared", "auxiliary"]),
    ],
)
def test_every_modality_that_the_model_has_gives_a_map(checkpoints, data, family, shape, modalities):
    (trained,) = load_trained([checkpoints[family]], inference=False)
    maps = feature_maps(trained, *pair(data, trained.image_size))
    assert list(maps) == modalities
    assert {one.shape for one in maps.values()} == {shape}
    assert all(np.isfinite(one).all() and one.std() > 0 for one in maps.values())
    assert not np.allclose(maps["visible"], maps["infrared"])


def test_muns_maps_are_means_of_its_first_stages(checkpoints, data):
    (trained,) = load_trained([checkpoints["mun"]], inference=False)
    visible, infrared = pair(data, trained.image_size)
    maps = feature_maps(trained, visible, infrared)
    direct = trained.model.infrared_stage(Tensor(infrared.batch)).asnumpy()[0].mean(axis=0)
    assert maps["infrared"] == pytest.approx(direct, abs=1e-6)


def test_a_row_for_each_pair_with_five_panels_where_there_is_an_auxiliary_map():
    size = (48, 24)
    pictures = tuple(Decoded(np.zeros((*size, 3), np.uint8), modality, "") for modality in ("visible", "infrared"))
    maps = {name: np.arange(72.0).reshape(12, 6) for name in ("visible", "infrared", "auxiliary")}
    figure = draw_features([pictures, pictures], [maps, maps])
    assert sum(bool(axes.images) for axes in figure.axes) == 2 * 5
    assert figure.get_size_inches() == pytest.approx([5.65, 4.15])  # panels 0.95 wide, twice as high
    assert [axes.get_title() for axes in figure.axes if axes.title.get_parse_math()][:3] == ["$F^v$", "$F^r$", "$F^a$"]
    without = {name: maps[name] for name in ("visible", "infrared")}
    assert sum(bool(axes.images) for axes in draw_features([pictures], [without]).axes) == 4
