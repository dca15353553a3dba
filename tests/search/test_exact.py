"""Exact search: its order is `evaluate_ranking`'s, in whatever blocks it works."""

import numpy as np
import pytest

from ms_vireid.evaluation import evaluate_ranking
from ms_vireid.inference.feature_files import open_features, save_features
from ms_vireid.search import exact
from ms_vireid.search.exact import search_exact
from ms_vireid.search.found import NOTHING

from .galleries import EQUAL, gallery, queries, stable_order

BLOCKS = pytest.mark.parametrize("floats", [12, 7 * 12, 1 << 24])  # of one row, of seven, of all


@BLOCKS
def test_the_order_is_that_of_evaluate_ranking(monkeypatch, floats):
    monkeypatch.setattr(exact, "_BLOCK_FLOATS", floats)
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
def test_the_first_are_found_with_their_similarities(monkeypatch, floats, top_k):
    monkeypatch.setattr(exact, "_BLOCK_FLOATS", floats)
    asked, searched = queries(), gallery()
    similarity, index = search_exact(asked.features, searched.features, top_k)
    assert index.shape == similarity.shape == (4, min(top_k, 60))
    assert np.array_equal(index, stable_order(asked, searched)[:, :top_k])
    expected = np.take_along_axis(asked.features @ searched.features.T, index, 1)
    assert similarity == pytest.approx(expected, abs=3e-7)  # distances are rounded to 6e-8 twice


@BLOCKS
def test_what_is_not_allowed_is_not_found(monkeypatch, floats):
    monkeypatch.setattr(exact, "_BLOCK_FLOATS", floats)
    asked, searched = queries(), gallery()
    allowed = np.isin(np.arange(60), [2, 17, 18, 33, 59])
    _, index = search_exact(asked.features, searched.features, 7, allowed)
    assert np.array_equal(index[:, :5], stable_order(asked, searched, allowed))
    assert (index[:, 5:] == NOTHING).all()
    similarity, index = search_exact(asked.features, searched.features, 3, np.zeros(60, bool))
    assert (index == NOTHING).all()
    assert np.isneginf(similarity).all()


def test_a_gallery_that_comes_nearer_and_nearer_is_searched_right(monkeypatch):
    monkeypatch.setattr(exact, "_BLOCK_FLOATS", 100)
    angle = np.linspace(np.pi / 2, 0, 500)
    searched = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    _, index = search_exact(np.array([[1, 0]], np.float32), searched, 3)
    assert index.tolist() == [[499, 498, 497]]


def test_a_gallery_on_disk_is_read_in_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr(exact, "_BLOCK_FLOATS", 7 * 12)
    save_features(tmp_path / "gallery.npz", gallery())
    searched, read = open_features(tmp_path / "gallery.npz"), []
    fromfile = np.fromfile
    monkeypatch.setattr(np, "fromfile", lambda *a, **k: read.append(fromfile(*a, **k)) or read[-1])
    _, index = search_exact(queries().features, searched.features, 10)
    assert [len(block) for block in read] == [84] * 8 + [48]
    assert np.array_equal(index, stable_order(queries(), gallery())[:, :10])
