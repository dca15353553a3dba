"""What is embedded: as many of each modality, and the auxiliary features where the model makes them."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mindspore import Tensor

from ms_vireid.command.errors import InputError
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.inference import load_trained
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
    with pytest.raises(InputError, match="4 pictures are too few for t-SNE"):
        project(features[:4], 2)


def test_a_column_for_each_checkpoint_and_a_row_for_each_number_of_dimensions():
    rng = np.random.default_rng(0)
    modalities = np.array(["visible", "infrared", "auxiliary"] * 4)
    one = Sample(rng.standard_normal((12, 8)).astype(np.float32), np.repeat(["3", "8"], 6), modalities)
    figure = draw_embedding([one, one], ["epoch 1", "epoch 9"], (2, 3))
    assert [axes.name for axes in figure.axes] == ["rectilinear", "rectilinear", "3d", "3d"]
    assert [axes.get_title() for axes in figure.axes] == ["epoch 1", "epoch 9", "", ""]
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
