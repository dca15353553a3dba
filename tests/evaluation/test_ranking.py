"""CMC, mAP and mINP: hand-worked examples, the slow definition on random cases, and the cost beside a plain argsort."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from ms_vireid.evaluation import evaluate_ranking


def slow_ranking(distance, query_ids, gallery_ids, query_cameras, gallery_cameras, protocol, max_rank):
    """The definition: sort each query's kept gallery, then look where its matches are."""
    cmc, average_precisions, penalties = [], [], []
    for q in range(len(distance)):
        kept = np.arange(len(gallery_ids))
        if protocol == "sysu_mm01" and query_cameras[q] == 3:
            kept = kept[gallery_cameras != 2]
        if protocol == "llcm":
            kept = np.flatnonzero((gallery_ids != query_ids[q]) | (gallery_cameras != query_cameras[q]))
        ranking = gallery_ids[kept[np.argsort(distance[q, kept], kind="stable")]]
        ranks = np.flatnonzero(ranking == query_ids[q]) + 1
        if len(ranks) == 0:
            continue
        counted = list(ranking) if protocol == "regdb" else list(dict.fromkeys(ranking))
        cmc.append([query_ids[q] in counted[:k] for k in range(1, max_rank + 1)])
        average_precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
        penalties.append(len(ranks) / ranks[-1])
    return np.mean(cmc, axis=0), np.mean(average_precisions), np.mean(penalties), len(cmc)


def assert_equals_definition(distance, query_ids, gallery_ids, query_cameras, gallery_cameras, protocol, max_rank=20):
    arguments = distance, query_ids, gallery_ids, query_cameras, gallery_cameras, protocol, max_rank
    result = evaluate_ranking(*arguments)
    cmc, mean_ap, mean_inp, num_valid = slow_ranking(*arguments)
    assert result.num_valid_queries == num_valid
    np.testing.assert_array_equal(result.cmc, cmc)
    assert (result.mean_ap, result.mean_inp) == (mean_ap, mean_inp)


def random_case(generator, num_queries, num_gallery, num_ids, dtype, ties):
    """distance, query_ids, gallery_ids, query_cameras, gallery_cameras; with ties, distances take 7 values."""
    distance = generator.normal(1, 0.5, (num_queries, num_gallery))  # some are negative
    if ties:
        distance = np.clip(np.round(distance * 4) / 4, 0, 1.5) * generator.choice([1, -1])  # zeros of both signs
    return (
        distance.astype(dtype),
        generator.integers(0, num_ids, num_queries) * 7 - 3,
        generator.integers(0, num_ids, num_gallery) * 7 - 3,
        generator.choice([3, 6], num_queries),
        generator.choice([1, 2, 3, 5], num_gallery),
    )


NEAR = [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]
# Distances, identities of query and gallery, cameras of both, protocol; CMC, mAP, mINP.
BY_HAND = {
    # Ranked: identities 2 2 3 1 1. Distinct: 2 3 1, so identity 1 is third. Its images are at ranks 4 and 5:
    # AP = (1/4 + 2/5) / 2 = 0.325, INP = 2/5.
    "sysu counts identities": (
        [[0.4, 0.1, 0.3, 0.2, 0.5]], [1], [1, 2, 3, 2, 1], [6], [1] * 5, "sysu_mm01", [0, 0, 1, 1], 0.325, 0.4,
    ),
    "regdb counts images": (
        [[0.4, 0.1, 0.3, 0.2, 0.5]], [1], [1, 2, 3, 2, 1], None, None, "regdb", [0, 0, 0, 1, 1], 0.325, 0.4,
    ),
    "llcm counts identities": ([[0.1, 0.2, 0.3]], [1], [2, 2, 1], [5], [1, 2, 1], "llcm", [0, 1], 1 / 3, 1 / 3),
    # Ranked (identity, camera): 1c2 2c2 2c1 1c1 3c2 1c4. Camera 3 keeps 2c1 1c1 1c4: distinct rank 2, image ranks 2
    # and 3, AP = (1/2 + 2/3) / 2 = 7/12, INP = 2/3.
    "sysu, camera 3 ignores camera 2": (
        NEAR, [1], [1, 2, 2, 1, 3, 1], [3], [2, 2, 1, 1, 2, 4], "sysu_mm01", [0, 1], 7 / 12, 2 / 3,
    ),
    # The same ranking in full: image ranks 1, 4, 6, AP = (1/1 + 2/4 + 3/6) / 3 = 2/3, INP = 3/6.
    "sysu, camera 6 keeps camera 2": (
        NEAR, [1], [1, 2, 2, 1, 3, 1], [6], [2, 2, 1, 1, 2, 4], "sysu_mm01", [1], 2 / 3, 0.5,
    ),
    "regdb has no camera rule": ([[0.1, 0.2]], [1], [1, 2], [3], [2, 2], "regdb", [1], 1, 1),
    # Ranked: 1c2 2c2 3c2 1c1 1c4. Query 1c2 keeps 2c2 3c2 1c1 1c4: distinct rank 3, image ranks 3 and 4,
    # AP = (1/3 + 2/4) / 2 = 5/12, INP = 2/4.
    "llcm, own identity and camera": (
        [NEAR[0][:5]], [1], [1, 2, 3, 1, 1], [2], [2, 2, 2, 1, 4], "llcm", [0, 0, 1], 5 / 12, 0.5,
    ),
    # All equal: the ranking is in gallery order, 2 1 1 3, so AP = (1/2 + 2/3) / 2 = 7/12, INP = 2/3.
    "equal distances": ([[1.0] * 4], [1], [2, 1, 1, 3], None, None, "regdb", [0, 1], 7 / 12, 2 / 3),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_rankings_worked_by_hand(name):
    distance, *given, protocol, cmc, mean_ap, mean_inp = BY_HAND[name]
    result = evaluate_ranking(np.array(distance), *given, protocol=protocol, max_rank=len(cmc))
    np.testing.assert_array_equal(result.cmc, cmc)
    assert (result.mean_ap, result.mean_inp) == pytest.approx((mean_ap, mean_inp), abs=1e-15)
    assert result.num_valid_queries == 1


def test_ranks_beyond_max_rank_are_not_reported():
    result = evaluate_ranking(np.array([[0.2, 0.1]]), [1], [1, 2], protocol="regdb", max_rank=10)
    assert list(result.metrics()) == ["rank1", "rank5", "rank10", "map", "minp"]


@pytest.mark.parametrize("protocol", ["sysu_mm01", "regdb", "llcm"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_random_cases_equal_the_definition_exactly(protocol, dtype, ties):
    generator = np.random.default_rng(7)
    for _ in range(40):
        num_queries, num_gallery, num_ids = generator.integers((1, 10, 1), (40, 90, 12))
        case = random_case(generator, num_queries, num_gallery, num_ids, dtype, ties)
        assert_equals_definition(*case, protocol, max_rank=int(generator.integers(1, 25)))
    assert_equals_definition(*random_case(generator, 50, 700, 3, dtype, ties), protocol)  # hundreds of each identity


def test_a_matrix_of_many_blocks_equals_the_definition():
    case = random_case(np.random.default_rng(5), 600, 1500, 15, np.float32, ties=True)
    assert_equals_definition(*case, "sysu_mm01")


def test_a_transposed_matrix_gives_the_same_result_and_no_matrix_is_modified():
    distance, *rest = random_case(np.random.default_rng(6), 20, 30, 5, np.float32, ties=False)
    assert_equals_definition(np.asfortranarray(distance), *rest, "sysu_mm01")
    distance.flags.writeable = False
    before = distance.tobytes()
    evaluate_ranking(distance, *rest)
    assert distance.tobytes() == before


def arguments(**changes):
    """Valid arguments for 2 queries and 3 gallery images, but for the changes."""
    valid = {
        "distance": np.zeros((2, 3)),
        "query_ids": [1, 2],
        "gallery_ids": [1, 2, 3],
        "query_cameras": [3, 6],
        "gallery_cameras": [1, 1, 1],
    }
    return {**valid, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distance": np.array([[0, 1, 2], [0, np.nan, np.inf]])}, r"distance\[1, 1\] is nan"),
        ({"distance": np.array([[0, 1, -np.inf], [0, 1, 2]])}, r"distance\[0, 2\] is -inf"),
        ({"distance": np.zeros(3)}, r"distance has shape \(3,\)"),
        ({"distance": np.zeros((2, 3), int)}, r"distance is int64"),
        ({"query_ids": [1, 2, 3]}, r"query_ids has shape \(3,\): it must be \(2,\), as the distance matrix is"),
        ({"gallery_ids": [1, 2]}, r"gallery_ids has shape \(2,\): it must be \(3,\), as the distance matrix is"),
        ({"query_cameras": [3]}, r"query_cameras has shape \(1,\)"),
        ({"gallery_cameras": [[1, 1, 1]]}, r"gallery_cameras has shape \(1, 3\)"),
        ({"query_cameras": None}, r"query_cameras is None"),
        ({"gallery_cameras": None}, r"gallery_cameras is None"),
        ({"gallery_cameras": None, "protocol": "llcm"}, "gallery_cameras is None: this protocol needs the cameras"),
        ({"protocol": "market"}, r"unknown protocol 'market': choose one of sysu_mm01, regdb"),
        ({"max_rank": 0}, r"max_rank is 0"),
        ({"query_ids": [8, 9]}, r"none of the 2 queries has a match"),
        ({"distance": np.zeros((0, 3)), "query_ids": [], "query_cameras": []}, r"none of the 0 queries"),
        ({"distance": np.zeros((2, 0)), "gallery_ids": [], "gallery_cameras": []}, r"gallery of 0 images"),
    ],
)
def test_wrong_arguments_are_errors_with_the_wrong_value(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        evaluate_ranking(**arguments(**changes))
    assert "\n" not in str(error.value)


def test_numba_is_not_imported_before_something_is_ranked():
    code = "import sys, ms_vireid.evaluation.protocol; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("num_ids", [40, 4])
def test_memory_beyond_the_matrix_is_less_than_a_copy(dtype, num_ids):
    distance, *rest = random_case(np.random.default_rng(0), 600, 800, num_ids, dtype, ties=False)
    distance[rest[0][:, None] == rest[1]] = 2  # the worst case: all other images come before the matches
    evaluate_ranking(distance, *rest)
    tracemalloc.start()
    evaluate_ranking(distance, *rest)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < distance.nbytes
