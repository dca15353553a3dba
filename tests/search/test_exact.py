"""Exact search: its order is `evaluate_ranking`'s, in whatever blocks it works."""

import tracemalloc

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.evaluation import evaluate_ranking
from ms_vireid.search import exact
from ms_vireid.search.exact import search_exact
from ms_vireid.search.local_gallery import LocalGallery
from ms_vireid.search.result import NOTHING

from .galleries import EQUAL, gallery, queries, stable_order, with_ranges

BLOCKS = pytest.mark.parametrize("similarities", [60, 3 * 60, 1 << 24])  # of one query, of three, of all


@BLOCKS
def test_the_order_is_that_of_evaluate_ranking(monkeypatch, similarities):
    monkeypatch.setattr(exact, "_SIMILARITIES", similarities)
    asked, searched = queries().features, gallery().features
    distance = np.float32(1) - asked @ searched.T
    _, index = search_exact(asked, searched, len(searched))
    numbers = np.arange(len(searched))
    for row, found in zip(distance, index, strict=True):
        for image in numbers:  # alone of its identity, its rank is the inverse of mINP
            result = evaluate_ranking(row[None], np.array([image]), numbers, protocol="regdb")
            assert found[round(1 / result.mean_inp) - 1] == image


def test_the_cases_hold_equals_that_a_sort_by_similarity_would_order_otherwise():
    similarity = queries().features @ gallery().features.T
    assert len(set(similarity[0, list(EQUAL)])) == 1
    by_similarity = np.argsort(-similarity[1], kind="stable")
    assert by_similarity.tolist() != stable_order(queries(), gallery())[1].tolist()


@BLOCKS
@pytest.mark.parametrize("top_k", [1, 5, 100])
def test_the_first_are_found_with_their_similarities(monkeypatch, similarities, top_k):
    monkeypatch.setattr(exact, "_SIMILARITIES", similarities)
    asked, searched = queries(), gallery()
    similarity, index = search_exact(asked.features, searched.features, top_k)
    assert index.shape == similarity.shape == (4, min(top_k, 60))
    assert np.array_equal(index, stable_order(asked, searched)[:, :top_k])
    expected = np.take_along_axis(asked.features @ searched.features.T, index, 1)
    assert similarity == pytest.approx(expected, abs=3e-7)  # distances are rounded to 6e-8 twice


@pytest.mark.parametrize("top_k", [1, 7, 50])
def test_many_equals_across_blocks_come_in_the_gallerys_order(monkeypatch, top_k):
    monkeypatch.setattr(exact, "_SIMILARITIES", 200)
    monkeypatch.setattr(exact, "_QUERIES", 3)
    rng = np.random.default_rng(3)
    asked, searched = (np.eye(4, dtype=np.float32)[rng.integers(0, 4, count)] for count in (8, 150))
    _, index = search_exact(asked, searched, top_k)
    assert np.array_equal(index, np.argsort(1 - asked @ searched.T, axis=1, kind="stable")[:, :top_k])


def test_memory_is_that_of_a_block(monkeypatch):
    monkeypatch.setattr(exact, "_SIMILARITIES", 1 << 16)
    rng = np.random.default_rng(4)
    asked, searched = (rng.standard_normal((count, 16)).astype(np.float32) for count in (256, 20_000))
    tracemalloc.start()
    search_exact(asked, searched, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # the matrix of all would take 20 MiB


@BLOCKS
def test_what_is_not_allowed_is_not_found(monkeypatch, similarities):
    monkeypatch.setattr(exact, "_SIMILARITIES", similarities)
    asked, searched = queries(), gallery()
    allowed = np.isin(np.arange(60), [2, 17, 18, 33, 59])
    _, index = search_exact(asked.features, searched.features, 7, allowed)
    assert np.array_equal(index[:, :5], stable_order(asked, searched, allowed))
    assert (index[:, 5:] == NOTHING).all()
    similarity, index = search_exact(asked.features, searched.features, 3, np.zeros(60, bool))
    assert (index == NOTHING).all()
    assert np.isneginf(similarity).all()


def test_features_made_with_other_ranges_of_16_bits_are_not_compared():
    ranges = {"infrared": [100, 200], "visible/2": [0, 1023]}
    turned = dict(reversed(ranges.items()))
    alike = ("full", "measured"), (ranges, turned), ([1, 2], [1, 2])
    for ours, theirs in alike:
        asked, searched = with_ranges(queries(), ours), LocalGallery("day.npz", with_ranges(gallery(), theirs), None)
        assert searched.search(asked, 1)
    others = (("full",), (ranges,)), ((ranges,), ([100, 200],)), (([1, 2],), ([1, 3],)), (([1, 2], [0]), ([1, 2],))
    for ours, theirs in others:
        asked, searched = with_ranges(queries(), *ours), LocalGallery("day.npz", with_ranges(gallery(), *theirs), None)
        for search in (searched.search, searched.search_reranked):
            with pytest.raises(InputError, match=r"day\.npz: .* come from another checkpoint or data\.sixteen_bit"):
                search(asked, 1)
