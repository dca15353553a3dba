"""What is embedded: as many of each modality, and the auxiliary features where the model makes them."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mindspore import Tensor

from ms_vireid.command.errors import InputError
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.search.start import load_trained
from ms_vireid.visualization.embedding import Sample, choose_pictures, draw_embedding, project, sample


def test_pictures_are_chosen_evenly_of_identities_with_both_modalities(data):
    chosen = choose_pictures(data.test, 3, 2)
    assert len(np.unique(chosen.identities)) == 3
    assert chosen.infrared.tolist() == 3 * [False, False, True, True]
    assert np.array_equal(chosen.identities[~chosen.infrared], chosen.identities[chosen.infrared])
    with pytest.raises(InputError, match="no identity has visible and infrared pictures"):
        choose_pictures(data.test.subset(data.test.infrared), 3, 2)


def test_only_mun_has_auxiliary_features_of_unit_length(checkpoints, data):
    images = choose_pictures(data.test, 3, 2)
    for family, modalities in (("pmt", {"visible", "infrared"}), ("mun", {"visible", "infrared", "auxiliary"})):
        (trained,) = load_trained([checkpoints[family]], inference=False)
        found = sample(trained, images)
        assert set(found.modalities) == modalities
        assert len(found.features) == len(found.identities) == len(found.modalities) == 6 * len(modalities)
        assert np.linalg.norm(found.features, axis=1) == pytest.approx(1, abs=1e-5)


def test_auxiliary_features_are_made_of_picture_i_of_both_modalities(checkpoints, data):
    (trained,) = load_trained([checkpoints["mun"]], inference=False)
    images = choose_pictures(data.test, 2, 2)
    found = sample(trained, images)
    model = trained.model
    (visible, _), (infrared, _) = EvaluationBatches(images, trained.image_size, 4)
    maps = model.visible_stage(Tensor(visible)), model.infrared_stage(Tensor(infrared))
    made = model.generator((Tensor(visible), Tensor(infrared)), maps, None)
    pooled = model.bottleneck(model.pool(model.shared(made))).asnumpy()
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    assert found.features[found.modalities == "auxiliary"] == pytest.approx(expected, abs=1e-5)


def test_tsne_keeps_clusters_together_and_is_repeated_exactly():
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((3, 8))
    features = (np.repeat(centres, 8, axis=0) + rng.standard_normal((24, 8))).astype(np.float32)
    points = project(features, 2)
    assert points.shape == (24, 2)
    assert np.array_equal(points, project(features, 2))
    middles = points.reshape(3, 8, 2).mean(axis=1)
    nearest = np.linalg.norm(points[:, None] - middles[None], axis=2).argmin(axis=1)
    assert nearest.tolist() == np.repeat([0, 1, 2], 8).tolist()
    with pytest.raises(InputError, match="4 pictures are too few to project"):
        project(features[:4], 2)


def test_pca_keeps_distances_and_the_largest_spread_comes_first():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((12, 2)) * (5, 1)
    turned = flat @ np.linalg.qr(rng.standard_normal((6, 6)))[0][:2]  # a plane in six dimensions
    points = project(turned, 2, "pca")
    distances = [np.linalg.norm(one[:, None] - one[None], axis=2) for one in (flat, points)]
    assert distances[0] == pytest.approx(distances[1], abs=1e-9)
    assert points[:, 0].std() > 2 * points[:, 1].std()
    assert np.array_equal(points, project(turned, 2, "pca"))


def make_sample(people, pictures=4, seed=0):
    modalities = np.tile(["visible", "infrared", "auxiliary"], len(people) * pictures)
    features = np.random.default_rng(seed).standard_normal((len(modalities), 8), np.float32)
    return Sample(features, np.repeat(people, 3 * pictures), modalities)


@pytest.mark.parametrize("method", ["tsne", "pca"])
@pytest.mark.parametrize(("runs", "rows", "columns"), [(1, 1, 2), (2, 2, 2), (3, 2, 3), (4, 4, 3)])
def test_a_panel_for_each_checkpoint_and_number_of_dimensions_under_its_title(runs, rows, columns, method):
    titles = [f"run {i}\nrank-1 {i}.0 %" for i in range(runs)]
    samples = [make_sample(["3", "8"], 2, seed) for seed in range(runs)]
    figure = draw_embedding(samples, titles, (2, 3), method)
    assert [axes.name for axes in figure.axes] == runs * ["rectilinear"] + runs * ["3d"]
    assert [axes.get_title() for axes in figure.axes] == 2 * titles
    assert {axes.get_subplotspec().get_gridspec().get_geometry() for axes in figure.axes} == {(rows, columns)}
    assert all(len(axes.collections) == 2 * 3 for axes in figure.axes)  # identity and modality
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["visible", "infrared", "auxiliary", "A: 3", "B: 8"]


@pytest.mark.parametrize("name", ["{}", "040{}", "WWWWWWWWWWWW{}"])
@pytest.mark.parametrize("checkpoints_drawn", [1, 2])
def test_the_legend_is_whole(checkpoints_drawn, name):
    rng = np.random.default_rng(0)
    names = np.repeat(["visible", "infrared", "auxiliary"], 10)
    one = Sample(rng.standard_normal((30, 4), np.float32), np.array([name.format(i) for i in range(10)] * 3), names)
    figure = draw_embedding([one] * checkpoints_drawn, ["run"] * checkpoints_drawn, (2, 3))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 13
    box = legend.get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
