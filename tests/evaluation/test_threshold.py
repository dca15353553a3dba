"""Recall, precision, false matches and open-set identification at a threshold, and the threshold for a false-match
rate: the definition pair by pair."""

from pathlib import Path

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.data.records import image_set
from ms_vireid.evaluation import threshold as module
from ms_vireid.evaluation.protocol import (
    Trial,
    choose_threshold,
    cross_modality_trials,
    evaluate_trials,
    sysu_mm01_trials,
)
from ms_vireid.evaluation.ranking import mean_and_deviation
from ms_vireid.evaluation.threshold import STEPS, threshold_metrics

from .test_protocol import random_features, sysu_like


def slow_pairs(similarity, query_ids, gallery_ids, query_cameras, gallery_cameras, protocol):
    """For each query its pairs that count: (similarity, whether of the same person)."""
    for q in range(len(query_ids)):
        pairs = []
        for g in range(len(gallery_ids)):
            same = query_ids[q] == gallery_ids[g]
            if protocol == "sysu_mm01" and query_cameras[q] == 3 and gallery_cameras[g] == 2:
                continue
            if protocol == "llcm" and same and query_cameras[q] == gallery_cameras[g]:
                continue
            pairs.append((float(similarity[q, g]), bool(same)))
        yield pairs


def slow_metrics(*arguments, threshold):
    by_query = list(slow_pairs(*arguments))
    pairs = [pair for of_query in by_query for pair in of_query]
    accepted = [same for similarity, same in pairs if similarity >= threshold]
    false = len(accepted) - sum(accepted)
    parts = {
        "recall": (sum(accepted), sum(same for _, same in pairs)),
        "precision": (sum(accepted), len(accepted)),
        "fmr": (false, sum(not same for _, same in pairs)),
        "dir": [0, 0],
        "fpir": [0, 0],
    }
    for of_query in by_query:
        own, others = ([s for s, same in of_query if same == wanted] for wanted in (True, False))
        if own:
            parts["dir"][1] += 1
            parts["dir"][0] += max(own) >= threshold and all(max(own) > s for s in others)
        if others:
            parts["fpir"][1] += 1
            parts["fpir"][0] += max(others) >= threshold
    return {name: part / whole for name, (part, whole) in parts.items() if whole}


def random_case(seed, queries=40, gallery=60, people=7):
    """Similarities of -1, -0.5, 0, 0.5 and 1, with identities and cameras."""
    generator = np.random.default_rng(seed)
    return (
        generator.choice(np.linspace(-1, 1, 5, dtype=np.float32), (queries, gallery)),
        generator.integers(0, people, queries),
        generator.integers(0, people - 1, gallery),  # somebody has no match
        generator.choice([2, 3, 6], queries),
        generator.choice([1, 2, 3, 5], gallery),
    )


@pytest.mark.parametrize("protocol", ["sysu_mm01", "regdb", "llcm"])
@pytest.mark.parametrize("threshold", [-1.0, -0.2, 0.5, 0.5000001, 1.0])
def test_it_is_the_definition_also_for_ties_with_the_threshold(protocol, threshold, monkeypatch):
    for seed, block in enumerate((1 << 17, 130, 1)):  # all of a group, two queries and one at a time
        monkeypatch.setattr(module, "_BLOCK", block)
        case = *random_case(seed), protocol
        found = threshold_metrics(*case, threshold)
        assert found == slow_metrics(*case, threshold=threshold)
        assert list(found) == ["recall", "precision", "fmr", "dir", "fpir"]


def test_by_hand():
    # Query 0 is there twice, query 2 is not.
    similarity = np.float32([[0.6, 0.8, 1], [0.8, 0.6, 0]])
    case = similarity, np.array([0, 2]), np.array([0, 1, 0]), None, None, "regdb"
    assert threshold_metrics(*case, 0.7) == {"recall": 1 / 2, "precision": 1 / 3, "fmr": 2 / 4, "dir": 1, "fpir": 1}
    assert threshold_metrics(*case, 0.9) == {"recall": 1 / 2, "precision": 1, "fmr": 0, "dir": 1, "fpir": 0}


def test_what_would_divide_by_zero_is_left_out():
    one = np.float32([[1]])
    case = one, np.array([5]), np.array([5])
    assert threshold_metrics(*case, None, None, "regdb", 0.5) == {"recall": 1, "precision": 1, "dir": 1}  # no impostors
    assert threshold_metrics(-one, *case[1:], None, None, "regdb", 0.5) == {"recall": 0, "dir": 0}  # nothing accepted
    assert threshold_metrics(*case, np.array([3]), np.array([2]), "sysu_mm01", 0.5) == {}  # one place: nothing counts


def test_a_similarity_that_is_not_finite_is_an_error():
    similarity, *case = random_case(0)
    similarity[7, 3] = np.nan
    with pytest.raises(ValueError, match=r"similarity\[7, 3\] is nan: every similarity must be finite"):
        threshold_metrics(similarity, *case, "regdb", 0.5)


def searches(features, test, trials):
    """Similarities, identities and cameras of each trial."""
    for trial in trials:
        sides = trial.query, trial.gallery
        similarity = features[trial.query] @ features[trial.gallery].T
        yield similarity, *(column[side] for column in (test.identities, test.cameras) for side in sides)


def test_every_trial_is_measured_and_averaged():
    test = sysu_like()
    features, trials = random_features(test), sysu_mm01_trials(test, shots=10, trials=4)
    plain, result = (evaluate_trials(features, test, trials, "sysu_mm01", threshold=t) for t in (None, 0.1))
    for search, before, got in zip(searches(features, test, trials), plain.trials, result.trials, strict=True):
        expected = slow_metrics(*search, "sysu_mm01", threshold=0.1)
        assert got.metrics() == before.metrics() | expected
    assert result.mean["fmr"] == pytest.approx(np.mean([trial.metrics()["fmr"] for trial in result.trials]))
    lowest = evaluate_trials(features, test, trials, "sysu_mm01", threshold=-1).mean
    assert (lowest["recall"], lowest["fmr"], lowest["dir"]) == (1, 1, plain.mean["rank1"])


def test_a_metric_that_a_trial_lacks_is_averaged_over_the_others():
    mean, deviation = mean_and_deviation([{"rank1": 0.5}, {"rank1": 0.7, "precision": 0.2}, {"rank1": 0.6}])
    assert (mean["rank1"], mean["precision"], deviation["precision"]) == (pytest.approx(0.6), 0.2, 0)


@pytest.mark.parametrize("protocol", ["sysu_mm01", "llcm"])
@pytest.mark.parametrize("rate", [0.5, 0.1, 1 / 48])
def test_the_threshold_is_the_lowest_that_keeps_the_rate(protocol, rate):
    test = sysu_like()
    features = np.round(64 * random_features(test)) / 64  # whose products are exact in any order
    trials = sysu_mm01_trials(test, trials=5)
    chosen = choose_threshold(features, test, trials, protocol, rate)
    by_query = [pairs for search in searches(features, test, trials) for pairs in slow_pairs(*search, protocol)]
    impostors = [similarity for pairs in by_query for similarity, same in pairs if not same]
    accepted = [sum(s >= chosen.threshold - step / STEPS for s in impostors) for step in (0, 1)]
    assert (chosen.people, chosen.pairs, chosen.accepted) == (3, len(impostors), accepted[0])
    assert accepted[0] / len(impostors) <= rate < accepted[1] / len(impostors)
    result = evaluate_trials(features, test, trials, protocol, threshold=chosen.threshold)
    assert result.mean["fmr"] == pytest.approx(accepted[0] / len(impostors))


def alike(pictures, similarity=1.0):
    """Pictures of as many people, in both modalities, between which all similarities are the same."""
    rows = [(Path(f"{i}.jpg"), i % pictures, 1, i >= pictures) for i in range(2 * pictures)]
    features = np.float32([[1, 0], [similarity, (1 - similarity**2) ** 0.5]])
    return np.repeat(features, pictures, axis=0), image_set(rows)


def test_of_ties_all_or_none_are_accepted():
    features, images = alike(4, 0.5)
    trials = cross_modality_trials(images)
    assert choose_threshold(features, images, trials, "regdb", 0.5)[0] == 0.500001
    assert choose_threshold(features, images, trials, "regdb", 1)[0] == -1


def test_a_rate_that_so_few_pairs_cannot_show_is_refused():
    features, images = alike(4, 0.5)
    one = cross_modality_trials(images)
    for trials in (one, 3 * one):  # the same pairs again show nothing new
        assert choose_threshold(features, images, trials, "regdb", 1 / 12).accepted == 0
        with pytest.raises(InputError, match=r"fmr 0\.08: needs at least 13 pairs .*, but the 4 people .* make 12;"):
            choose_threshold(features, images, trials, "regdb", 0.08)
    query = Trial(one[0].query[:1], one[0].gallery[:1])
    with pytest.raises(InputError, match=r"needs at least 2 pairs .*, but the 4 people .* make 0; ask"):
        choose_threshold(features, images, [query], "regdb", 0.5)


def test_people_whom_no_threshold_tells_apart_are_refused():
    features, images = alike(4)
    with pytest.raises(InputError, match=r"fmr 0\.1: 12 of 12 pairs of different people have a similarity of 1"):
        choose_threshold(features, images, cross_modality_trials(images), "regdb", 0.1)
