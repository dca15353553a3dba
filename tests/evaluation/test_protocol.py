"""Who is searched among whom, the averages over trials, and what chance gives."""

import hashlib
import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from ms_vireid.data.records import ImageSet, image_set
from ms_vireid.evaluation import evaluate_ranking
from ms_vireid.evaluation.protocol import (
    Trial,
    chance,
    cross_modality_trials,
    evaluate_trials,
    llcm_trials,
    sysu_mm01_trials,
    trials_checksum,
)

CHANCE_ERROR = 4 * 0.5 / 50_000**0.5  # four times the largest standard error of a rate
# Pictures of each identity in each camera. Identity 12 comes before 3 in the set but not in the protocol's order.
COUNTS = {12: {1: 12, 2: 3, 3: 2, 5: 10, 6: 1}, 3: {1: 1, 2: 11, 3: 3, 4: 15, 6: 2}, 40: {4: 2, 5: 9, 6: 4}}
LLCM_COUNTS = {
    12: {"vis": {1: 12, 3: 2}, "nir": {1: 3, 9: 1}},
    3: {"vis": {1: 1, 2: 11}, "nir": {4: 15, 2: 2}},
    1064: {"vis": {9: 2}, "nir": {9: 5, 5: 1}},
}


def sysu_like(root: Path = Path("/data"), counts: dict = COUNTS) -> ImageSet:
    """Files in an order that is not that of their names."""
    rows = []
    for identity, cameras in counts.items():
        for camera, count in cameras.items():
            for i in reversed(range(count)):
                path = root / f"cam{camera}" / f"{identity:04d}" / f"{i + 1:04d}.jpg"
                rows.append((path, identity, camera, camera in (3, 6)))
    return image_set(rows)


def llcm_like(counts: dict = LLCM_COUNTS) -> ImageSet:
    """Likewise."""
    rows = [
        (Path(f"/data/test_{modality}/cam{camera}/{identity:04d}/{i:04d}.jpg"), identity, camera, modality == "nir")
        for identity, seen in counts.items()
        for modality, cameras in seen.items()
        for camera, count in cameras.items()
        for i in reversed(range(count))
    ]
    return image_set(rows)


def published_gallery(test: ImageSet, cameras: Iterable[int], shots: int, trial: int, within: str = "") -> list[int]:
    """The published samplings, rewritten plainly: global random state, one scan of the set for each pair."""
    random.seed(trial)
    paths, drawn = [str(path) for path in test.paths], []
    for identity in sorted(set(test.identities.tolist())):
        for camera in cameras:
            files = sorted(path for path in paths if f"{within}/cam{camera}/{identity:04d}/" in path)
            if not files:
                continue
            if shots == 1:
                drawn.append(random.choice(files))
            else:
                drawn.extend(random.sample(files, shots) if len(files) >= shots else files)
    return [paths.index(path) for path in drawn]


@pytest.mark.parametrize(("mode", "cameras"), [("all", (1, 2, 4, 5)), ("indoor", (1, 2))])
@pytest.mark.parametrize("shots", [1, 10])
def test_sysu_galleries_are_those_of_the_published_sampling(mode, cameras, shots):
    test = sysu_like()
    drawn = [trial.gallery.tolist() for trial in sysu_mm01_trials(test, mode, shots)]
    assert drawn == [published_gallery(test, cameras, shots, trial) for trial in range(10)]


@pytest.mark.parametrize(
    ("direction", "drawn", "modality", "whole"),
    [("infrared-to-visible", "gallery", "vis", "query"), ("visible-to-infrared", "query", "nir", "gallery")],
)
def test_llcm_draws_one_side_as_published_and_takes_all_of_the_other(direction, drawn, modality, whole):
    test = llcm_like()
    for number, trial in enumerate(llcm_trials(test, direction)):
        found = published_gallery(test, range(1, 10), 1, number, f"test_{modality}")
        assert getattr(trial, drawn).tolist() == found
        np.testing.assert_array_equal(getattr(trial, whole), np.flatnonzero(test.infrared == (modality == "vis")))


@pytest.mark.parametrize("turned", [True, False])
def test_llcms_visible_to_infrared_is_what_the_authors_script_reports(turned):
    """Their script with test_mode [2, 1], step by step: all visible pictures are taken as queries, infrared ones drawn
    as a gallery; then the matrix, the labels and the cameras of both are handed over the other way round. The planted
    error is a matrix that is not turned, as the direction's name suggests."""
    test = llcm_like()
    features = random_features(test)
    query = np.flatnonzero(~test.infrared)
    expected = []
    for number in range(10):
        gallery = published_gallery(test, range(1, 10), 1, number, "test_nir")
        given = [values[index] for values in (test.identities, test.cameras) for index in (gallery, query)]
        expected.append(evaluate_ranking(-(features[gallery] @ features[query].T), *given, protocol="llcm"))
    trials = llcm_trials(test, "visible-to-infrared")
    if turned:
        result = evaluate_trials(features, test, trials, "llcm")
        assert [trial.metrics() for trial in result.trials] == [trial.metrics() for trial in expected]
    else:
        result = evaluate_trials(features, test, [Trial(trial.gallery, trial.query) for trial in trials], "llcm")
        assert abs(result.mean["map"] - np.mean([trial.mean_ap for trial in expected])) > 0.01


@pytest.mark.parametrize("mode", ["all", "indoor"])
def test_sysu_queries_are_all_pictures_of_cameras_3_and_6(mode):
    test = sysu_like()
    for trial in sysu_mm01_trials(test, mode):
        assert trial.query.tolist() == [i for i, camera in enumerate(test.cameras) if camera in (3, 6)]


def test_sysu_trials_do_not_depend_on_the_order_of_the_set_or_on_the_global_random_state():
    test = sysu_like()
    order = np.random.default_rng(0).permutation(len(test))
    shuffled = test.subset(order)
    random.seed(5)
    first = sysu_mm01_trials(test, shots=10)
    random.seed(6)
    second = sysu_mm01_trials(shuffled, shots=10)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.gallery, order[b.gallery])


@pytest.mark.parametrize("trials", [lambda: sysu_mm01_trials(sysu_like()), lambda: llcm_trials(llcm_like())])
def test_trials_leave_the_global_random_state_alone(trials):
    state = random.getstate()
    trials()
    assert random.getstate() == state


def test_more_trials_start_with_the_same_ones():
    test = sysu_like()
    for a, b in zip(sysu_mm01_trials(test, trials=3), sysu_mm01_trials(test, trials=10), strict=False):
        np.testing.assert_array_equal(a.gallery, b.gallery)


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        (lambda: sysu_mm01_trials(sysu_like(counts={1: {1: 2, 2: 2}}), "indoor"), "no query picture"),
        (lambda: sysu_mm01_trials(sysu_like(counts={1: {3: 2, 4: 2}}), "indoor"), "no gallery picture"),
        (lambda: cross_modality_trials(sysu_like(counts={1: {1: 2}})), "no query picture"),
        (lambda: cross_modality_trials(sysu_like(counts={1: {3: 2}})), "no gallery picture"),
        (lambda: llcm_trials(llcm_like({3: {"vis": {1: 2}}})), "no query picture"),
        (lambda: llcm_trials(llcm_like({3: {"nir": {1: 2}}})), "no gallery picture"),
    ],
)
def test_sets_that_lack_a_side_are_errors(trials, message):
    with pytest.raises(ValueError, match=message):
        trials()


def test_cross_modality_trials_search_all_of_one_modality_among_all_of_the_other():
    test = sysu_like()
    infrared, visible = np.flatnonzero(test.infrared), np.flatnonzero(~test.infrared)
    (forward,) = cross_modality_trials(test, "infrared-to-visible")
    (backward,) = cross_modality_trials(test, "visible-to-infrared")
    np.testing.assert_array_equal(forward.query, infrared)
    np.testing.assert_array_equal(forward.gallery, visible)
    np.testing.assert_array_equal(backward.query, visible)
    np.testing.assert_array_equal(backward.gallery, infrared)


def test_the_checksum_is_over_identity_camera_modality_and_name_in_order_wherever_they_lie():
    test = image_set([(Path("/data/q.jpg"), 1, 6, True), (Path("/data/g.jpg"), 2, 1, False)])
    spelled_out = b"query\t1\n1\t6\tinfrared\tq.jpg\ngallery\t1\n2\t1\tvisible\tg.jpg\n"
    assert trials_checksum(test, cross_modality_trials(test)) == hashlib.sha256(spelled_out).hexdigest()[:16]
    here, there = sysu_like(Path("/data")), sysu_like(Path("/mnt/other/data"))
    assert trials_checksum(here, sysu_mm01_trials(here)) == trials_checksum(there, sysu_mm01_trials(there))


def test_the_checksum_tells_other_galleries_trials_and_annotations_apart():
    test = sysu_like()
    choices = [sysu_mm01_trials(test, **given) for given in ({}, {"shots": 10}, {"mode": "indoor"}, {"trials": 9})]
    trials = cross_modality_trials(test)
    found = {trials_checksum(test, searched) for searched in (*choices, trials)}
    found.add(trials_checksum(test, cross_modality_trials(test, "visible-to-infrared")))
    names = "identities", "cameras", "infrared"
    for name in names:
        changed = {field: getattr(test, field).copy() for field in names}
        changed[name][0] ^= 1
        found.add(trials_checksum(ImageSet(test.paths, **changed), trials))
    assert len(found) == 9


def random_features(test: ImageSet) -> np.ndarray:
    features = np.random.default_rng(0).normal(size=(len(test), 16)).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_every_trial_is_ranked_as_on_its_own():
    test = sysu_like()
    features = random_features(test)
    trials = sysu_mm01_trials(test, shots=10, trials=4)
    trials[1] = Trial(trials[1].query[1:], trials[1].gallery)
    result = evaluate_trials(features, test, trials, "sysu_mm01")
    for trial, got in zip(trials, result.trials, strict=True):
        expected = evaluate_ranking(
            1 - features[trial.query] @ features[trial.gallery].T,
            test.identities[trial.query],
            test.identities[trial.gallery],
            test.cameras[trial.query],
            test.cameras[trial.gallery],
        )
        assert got.metrics() == expected.metrics()


def test_results_are_means_and_population_deviations_over_trials_and_json():
    test = sysu_like()
    trials = sysu_mm01_trials(test, trials=5)
    result = evaluate_trials(random_features(test), test, trials, "sysu_mm01")
    read = json.loads(json.dumps(result.as_dict()))
    assert (read["mean"], read["std"]) == (result.mean, result.std)
    assert read["trials"] == [trial.metrics() for trial in result.trials]
    assert (read["num_queries"], read["num_gallery"]) == (12, 8)
    assert read["checksum"] == trials_checksum(test, trials)
    for name in ("rank1", "rank5", "rank10", "rank20", "map", "minp"):
        values = [trial.metrics()[name] for trial in result.trials]
        mean = sum(values) / 5
        assert result.mean[name] == pytest.approx(mean, abs=1e-15)
        assert result.std[name] == pytest.approx((sum((v - mean) ** 2 for v in values) / 5) ** 0.5, abs=1e-15)


@pytest.mark.parametrize("protocol", ["sysu_mm01", "regdb", "llcm"])
def test_chance_is_the_mean_over_all_rankings(protocol):
    # 6 gallery pictures in all 720 orders, for queries with 2, 1, 3 and no matches, some of them out of sight.
    gallery = [(1, 1), (1, 2), (2, 1), (3, 2), (3, 4), (3, 5)]
    queries = (
        [(1, 3), (1, 6), (2, 3), (3, 6), (3, 3), (9, 6)] if protocol != "llcm" else [(1, 1), (1, 5), (3, 4), (2, 1)]
    )
    rows = [(identity, camera, i < len(queries)) for i, (identity, camera) in enumerate(queries + gallery)]
    test = image_set([(Path(f"{i}.jpg"), *row) for i, row in enumerate(rows)])
    (trial,) = trials = cross_modality_trials(test)
    orders = np.array(list(itertools.permutations(range(6))), np.float32)
    query = np.repeat(trial.query, len(orders))
    given = [values[index] for values in (test.identities, test.cameras) for index in (query, trial.gallery)]
    expected = evaluate_ranking(np.tile(orders, (len(queries), 1)), *given, protocol)
    found = chance(test, trials, protocol)
    assert found == pytest.approx(expected.metrics(), abs=CHANCE_ERROR)
    assert chance(test, trials, protocol) == found


def test_chance_without_any_match_is_an_error():
    test = sysu_like(counts={1: {1: 2}, 2: {6: 3}})
    with pytest.raises(ValueError, match=r"none of the .* queries has a match"):
        chance(test, cross_modality_trials(test), "regdb")
