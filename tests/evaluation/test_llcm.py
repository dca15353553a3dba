"""LLCM's protocol: who is searched among whom, and which gallery images a query does not see."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from ms_vireid.data.records import ImageSet, image_set
from ms_vireid.evaluation import evaluate_ranking
from ms_vireid.evaluation.protocol import Trial, chance, evaluate_trials, llcm_trials

# Pictures of each identity in each camera, visible and infrared.
COUNTS = {
    12: {"vis": {1: 12, 3: 2}, "nir": {1: 3, 9: 1}},
    3: {"vis": {1: 1, 2: 11}, "nir": {4: 15, 2: 2}},
    1064: {"vis": {9: 2}, "nir": {9: 5, 5: 1}},
}


def llcm_like(counts: dict = COUNTS) -> ImageSet:
    """Files in an order that is not that of their names."""
    rows = [
        (Path(f"/data/test_{modality}/cam{camera}/{identity:04d}/{i:04d}.jpg"), identity, camera, modality == "nir")
        for identity, seen in counts.items()
        for modality, cameras in seen.items()
        for camera, count in cameras.items()
        for i in reversed(range(count))
    ]
    return image_set(rows)


def published_gallery(test: ImageSet, modality: str, trial: int) -> list[str]:
    """The published sampling, rewritten plainly: global random state, one scan of the set for each pair."""
    random.seed(trial)
    drawn = []
    for identity in sorted(set(test.identities.tolist())):
        for camera in range(1, 10):
            folder = f"test_{modality}/cam{camera}/{identity:04d}/"
            files = sorted(str(path) for path in test.paths if folder in str(path))
            if files:
                drawn.append(random.choice(files))
    return drawn


@pytest.mark.parametrize(
    ("direction", "drawn", "modality"),
    [("infrared-to-visible", "gallery", "vis"), ("visible-to-infrared", "query", "nir")],
)
def test_the_drawn_side_is_that_of_the_published_sampling(direction, drawn, modality):
    test = llcm_like()
    names = [[str(test.paths[i]) for i in getattr(trial, drawn)] for trial in llcm_trials(test, direction)]
    assert names == [published_gallery(test, modality, trial) for trial in range(10)]


@pytest.mark.parametrize(
    ("direction", "whole", "infrared"),
    [("infrared-to-visible", "query", True), ("visible-to-infrared", "gallery", False)],
)
def test_the_other_side_is_every_picture_of_its_modality(direction, whole, infrared):
    test = llcm_like()
    for trial in llcm_trials(test, direction):
        np.testing.assert_array_equal(getattr(trial, whole), np.flatnonzero(test.infrared == infrared))


def released_visible_to_infrared(features: np.ndarray, test: ImageSet) -> list[tuple]:
    """The authors' test script with test_mode [2, 1], step by step: all visible pictures are taken as queries, infrared
    ones drawn as a gallery; then the matrix, the labels and the cameras of both are handed over the other way round."""
    paths = [str(path) for path in test.paths]
    query = [i for i in range(len(test)) if not test.infrared[i]]
    metrics = []
    for trial in range(10):
        gallery = [paths.index(name) for name in published_gallery(test, "nir", trial)]
        distances = -(features[gallery] @ features[query].T)
        metrics.append(
            slow_ranking(
                distances,
                test.identities[gallery],
                test.identities[query],
                test.cameras[gallery],
                test.cameras[query],
                20,
            )
        )
    return metrics


def test_visible_to_infrared_is_what_the_authors_script_reports():
    test = llcm_like()
    features = np.random.default_rng(1).normal(size=(len(test), 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    result = evaluate_trials(features, test, llcm_trials(test, "visible-to-infrared"), "llcm")
    for trial, (cmc, mean_ap, mean_inp, num_valid) in zip(
        result.trials, released_visible_to_infrared(features, test), strict=True
    ):
        np.testing.assert_array_equal(trial.cmc, cmc)
        assert (trial.mean_ap, trial.mean_inp, trial.num_valid_queries) == (mean_ap, mean_inp, num_valid)


def test_a_matrix_that_is_not_turned_gives_other_numbers():
    # The planted error: all visible pictures searched among the drawn infrared ones, as the direction's name suggests.
    test = llcm_like()
    features = np.random.default_rng(1).normal(size=(len(test), 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    turned = [Trial(trial.gallery, trial.query) for trial in llcm_trials(test, "visible-to-infrared")]
    expected = np.mean([mean_ap for _, mean_ap, _, _ in released_visible_to_infrared(features, test)])
    assert abs(evaluate_trials(features, test, turned, "llcm").mean["map"] - expected) > 0.01


def test_a_gallery_has_one_picture_of_each_identity_and_camera():
    test = llcm_like()
    for trial in llcm_trials(test):
        pairs = zip(test.identities[trial.gallery].tolist(), test.cameras[trial.gallery].tolist(), strict=True)
        assert list(pairs) == [(3, 1), (3, 2), (12, 1), (12, 3), (1064, 9)]


def test_the_random_state_is_left_alone():
    state = random.getstate()
    llcm_trials(llcm_like())
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("counts", "missing"), [({3: {"vis": {1: 2}}}, "no query picture"), ({3: {"nir": {1: 2}}}, "no gallery picture")]
)
def test_one_sided_sets_are_errors(counts, missing):
    with pytest.raises(ValueError, match=missing):
        llcm_trials(llcm_like(counts))


def test_a_query_ignores_the_gallery_images_of_its_own_identity_and_camera():
    # Ranked (identity, camera): 1c2 2c2 3c2 1c1 1c4. Query 1c2 keeps 2c2 3c2 1c1 1c4: distinct rank 3, image ranks 3
    # and 4, AP = (1/3 + 2/4) / 2 = 5/12, INP = 2/4.
    distance = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    result = evaluate_ranking(distance, [1], [1, 2, 3, 1, 1], [2], [2, 2, 2, 1, 4], protocol="llcm", max_rank=3)
    np.testing.assert_array_equal(result.cmc, [0, 0, 1])
    assert result.mean_ap == pytest.approx(5 / 12, abs=1e-15)
    assert result.mean_inp == 0.5


def test_the_cmc_counts_distinct_identities():
    distance = np.array([[0.1, 0.2, 0.3]])
    result = evaluate_ranking(distance, [1], [2, 2, 1], [5], [1, 2, 1], protocol="llcm", max_rank=2)
    np.testing.assert_array_equal(result.cmc, [0, 1])


def test_a_query_that_only_its_own_camera_has_seen_is_left_out():
    distance = np.array([[0.1, 0.2], [0.1, 0.2]])
    result = evaluate_ranking(distance, [1, 2], [1, 2], [3, 3], [3, 4], protocol="llcm", max_rank=2)
    assert result.num_valid_queries == 1
    np.testing.assert_array_equal(result.cmc, [0, 1])


def test_cameras_are_needed():
    with pytest.raises(ValueError, match="gallery_cameras is None: this protocol needs the cameras"):
        evaluate_ranking(np.zeros((1, 1)), [1], [1], [1], None, protocol="llcm")


def slow_ranking(distance, query_ids, gallery_ids, query_cameras, gallery_cameras, max_rank):
    """The definition: sort each query's kept gallery, then look where its matches are."""
    cmc, average_precisions, penalties = [], [], []
    for q, (identity, camera) in enumerate(zip(query_ids, query_cameras, strict=True)):
        kept = np.flatnonzero((gallery_ids != identity) | (gallery_cameras != camera))
        ranking = gallery_ids[kept[np.argsort(distance[q, kept], kind="stable")]]
        ranks = np.flatnonzero(ranking == identity) + 1
        if len(ranks):
            cmc.append([identity in list(dict.fromkeys(ranking))[:k] for k in range(1, max_rank + 1)])
            average_precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
            penalties.append(len(ranks) / ranks[-1])
    return np.mean(cmc, axis=0), np.mean(average_precisions), np.mean(penalties), len(cmc)


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_random_cases_equal_the_definition_exactly(ties):
    generator = np.random.default_rng(7)
    for _ in range(40):
        num_queries, num_gallery, num_ids = generator.integers((1, 10, 1), (40, 90, 12))
        distance = generator.random((num_queries, num_gallery))
        if ties:
            distance = np.round(4 * distance) / 4
        ids = generator.integers(0, num_ids, num_queries), generator.integers(0, num_ids, num_gallery)
        cameras = generator.integers(1, 5, num_queries), generator.integers(1, 5, num_gallery)
        cmc, mean_ap, mean_inp, num_valid = slow_ranking(distance, *ids, *cameras, 10)
        result = evaluate_ranking(distance, *ids, *cameras, protocol="llcm", max_rank=10)
        np.testing.assert_array_equal(result.cmc, cmc)
        assert (result.mean_ap, result.mean_inp, result.num_valid_queries) == (mean_ap, mean_inp, num_valid)


def test_chance_is_the_mean_over_all_rankings():
    # Two galleries of 5 pictures in all 120 orders, for queries of which some do not see some of them.
    test = llcm_like({1: {"vis": {1: 1, 2: 1}, "nir": {1: 1, 5: 2}}, 2: {"vis": {1: 1, 4: 1, 5: 1}, "nir": {4: 1}}})
    (trial,) = llcm_trials(test, trials=1)
    orders = np.array(list(itertools.permutations(range(5))), np.float32)
    query = np.repeat(trial.query, len(orders))
    expected = evaluate_ranking(
        np.tile(orders, (len(trial.query), 1)),
        test.identities[query],
        test.identities[trial.gallery],
        test.cameras[query],
        test.cameras[trial.gallery],
        "llcm",
    )
    # Four times the largest standard error of a rate among 50,000 rankings.
    assert chance(test, [trial], "llcm") == pytest.approx(expected.metrics(), abs=0.009)


def test_trials_are_averaged():
    test = llcm_like()
    features = np.random.default_rng(0).normal(size=(len(test), 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    result = evaluate_trials(features, test, llcm_trials(test), "llcm")
    assert (result.num_queries, result.num_gallery, len(result.trials)) == (27, 5, 10)
    assert result.mean["map"] == pytest.approx(np.mean([trial.mean_ap for trial in result.trials]), abs=1e-15)
