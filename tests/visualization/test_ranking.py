"""The ranking strip's order is the one that `evaluate_ranking` counts."""

from pathlib import Path

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.data.records import ImageSet
from ms_vireid.evaluation import evaluate_ranking
from ms_vireid.evaluation.evaluating import searched_features
from ms_vireid.evaluation.protocol import Trial, evaluate_trials
from ms_vireid.search.start import load_trained
from ms_vireid.visualization.figure import RIGHT, WRONG
from ms_vireid.visualization.ranking import choose_queries, draw_ranking, find_queries, rank_queries


def random_set(count=60, width=6):
    rng = np.random.default_rng(5)
    infrared = np.arange(count) % 2 == 1
    cameras = np.where(infrared, rng.choice([3, 6], count), rng.choice([1, 2, 4, 5], count)).astype(np.int32)
    images = ImageSet(
        tuple(Path(f"{i}.jpg") for i in range(count)), rng.integers(0, 5, count).astype(np.int32), cameras, infrared
    )
    features = rng.standard_normal((count, width)).astype(np.float32)
    features[10] = features[8]  # a tie
    return features / np.linalg.norm(features, axis=1, keepdims=True), images


@pytest.mark.parametrize("protocol", ["sysu_mm01", "regdb", "llcm"])
def test_average_precision_and_ranks_of_the_strip_are_those_of_evaluate_ranking(protocol):
    features, images = random_set()
    trial = Trial(np.flatnonzero(images.infrared), np.flatnonzero(~images.infrared))
    ranked = rank_queries(features, images, trial, protocol)
    result = evaluate_trials(features, images, [trial], protocol).trials[0]
    assert len(ranked) == result.num_valid_queries
    assert np.mean([one.average_precision for one in ranked]) == pytest.approx(result.mean_ap, abs=1e-12)
    if protocol == "regdb":  # whose CMC counts images
        first = np.array([np.argmax(one.matches) for one in ranked])
        assert [np.mean(first < k) for k in range(1, 21)] == pytest.approx(result.cmc, abs=1e-12)


def test_each_querys_whole_order_is_the_stable_one_without_what_is_ignored():
    features, images = random_set()
    trial = Trial(np.flatnonzero(images.infrared), np.flatnonzero(~images.infrared))
    distance = 1 - features[trial.query] @ features[trial.gallery].T
    for one in rank_queries(features, images, trial, "sysu_mm01"):
        row = distance[np.searchsorted(trial.query, one.query)]
        seen = [
            i
            for i in np.argsort(row, kind="stable")
            if images.cameras[one.query] != 3 or images.cameras[trial.gallery[i]] != 2
        ]
        assert one.gallery.tolist() == trial.gallery[seen].tolist()
        alone = evaluate_ranking(
            row[None],
            images.identities[[one.query]],
            images.identities[trial.gallery],
            images.cameras[[one.query]],
            images.cameras[trial.gallery],
        )
        assert alone.mean_ap == pytest.approx(one.average_precision, abs=1e-12)


def test_best_and_worst_queries_are_chosen_by_average_precision():
    features, images = random_set()
    trial = Trial(np.flatnonzero(images.infrared), np.flatnonzero(~images.infrared))
    ranked = rank_queries(features, images, trial, "regdb")
    values = sorted(one.average_precision for one in ranked)
    assert [one.average_precision for one in choose_queries(ranked, 3, "worst")] == values[:3]
    assert [one.average_precision for one in choose_queries(ranked, 3, "best")] == values[::-1][:3]
    assert [one.query for one in choose_queries(ranked, 2, "spread")] == [ranked[0].query, ranked[-1].query]
    assert len(choose_queries(ranked, 1000, "spread")) == len(ranked)


def test_the_strip_marks_right_and_wrong_by_frame_and_symbol(checkpoints, data):
    (trained,) = load_trained([checkpoints["pmt"]])
    features, trials = searched_features(trained.extractor, data, trained.config.evaluation)
    ranked = choose_queries(rank_queries(features, data.test, trials[0], data.protocol), 3, "spread")
    figure = draw_ranking(ranked, data.test, trained.load_image)
    grid = np.array(figure.axes).reshape(3, 12)
    for line, one in zip(grid, ranked, strict=True):
        assert line[0].images
        for rank, axes in enumerate(line[2:]):
            right = one.matches[rank]
            assert axes.get_xlabel() == f"{'✓' if right else '✗'} {one.similarity[rank]:.2f}"
            assert axes.xaxis.label.get_color() == (RIGHT if right else WRONG)
            assert len(axes.patches) == 1
    shown = np.asarray(grid[1, 4].images[0].get_array())
    assert shown.shape == (*trained.image_size, 3)


def test_pictures_are_found_as_queries_in_their_order_and_others_refused(tmp_path):
    features, images = random_set()
    trial = Trial(np.flatnonzero(images.infrared), np.flatnonzero(~images.infrared))
    ranked = rank_queries(features, images, trial, "regdb")
    pictures = [images.paths[ranked[4].query], images.paths[ranked[1].query].resolve()]
    assert find_queries(ranked, images, pictures) == [ranked[4], ranked[1]]
    with pytest.raises(InputError, match=r"not queries of the test set: 1 \(0\.jpg\); .*for example, \d+\.jpg"):
        find_queries(ranked, images, [*pictures, images.paths[0]])
