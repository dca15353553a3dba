"""FAISS indexes: as exact as they can be, filtered, saved whole and loaded."""

import faiss
import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.inference.feature_files import save_features
from ms_vireid.search import faiss_index
from ms_vireid.search.faiss_index import build_index, load_index, save_index
from ms_vireid.search.found import NOTHING, nearest
from ms_vireid.search.local_gallery import search_exact

from .galleries import WIDTH, as_features, gallery, queries

KINDS = pytest.mark.parametrize("kind", ["flat", "hnsw"])


def identities(count: int, pictures: int = 20, seed: int = 0):
    """A gallery and 50 queries of clustered features."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count // pictures, 64))

    def about(index):
        rows = centres[index] + 0.8 * rng.standard_normal((len(index), 64))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return about(np.arange(count) // pictures), about(rng.integers(0, len(centres), 50))


def test_flat_finds_what_exact_search_finds_in_its_order(monkeypatch):
    monkeypatch.setattr(faiss_index, "_ROWS_AT_ONCE", 7)
    asked, searched = queries(), gallery()
    similarity, index = build_index("flat", searched.features).search(asked.features, 10)
    expected = search_exact(asked.features, searched.features, 10)
    assert np.array_equal(index, expected[1])
    assert similarity == pytest.approx(expected[0], abs=1e-6)


def test_equals_beyond_the_last_place_are_asked_for():
    similarities = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1], np.float32)
    numbers, asked = np.array([7, 9, 8, 4, 3, 1]), []

    def search(count):
        asked.append(count)
        return similarities[None, :count], numbers[None, :count]

    _, index = nearest(search, 2, 6)
    assert index.tolist() == [[7, 3]]
    assert asked == [3, 6]


def test_breadth_trades_recall():
    searched, asked = identities(4000)
    index = build_index("hnsw", searched)
    _, exact = search_exact(asked, searched, 10)
    recalls = []
    for breadth in (1, None, 4000):
        _, found = index.search(asked, 10, breadth=breadth)
        recalls.append(np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(exact, found, strict=True)]))
    assert recalls[0] < recalls[2]
    assert recalls[1] >= 0.95
    assert recalls[2] >= 0.999


@KINDS
def test_with_a_filter_both_kinds_are_exact(kind):
    searched, asked = identities(2000)
    allowed = np.arange(2000) % 97 == 0
    index = build_index(kind, searched)
    _, found = index.search(asked, 30, allowed)
    _, exact = search_exact(asked, searched, 30, allowed)
    assert np.array_equal(found, exact)
    assert (found[:, 21:] == NOTHING).all()


@KINDS
def test_an_index_of_few_rows_finds_them_all(kind):
    asked, searched = queries(), gallery(count=45)
    index = build_index(kind, searched.features)
    _, found = index.search(asked.features, 100)
    assert np.array_equal(np.sort(found), np.tile(np.arange(45), (4, 1)))


@KINDS
def test_a_saved_index_searches_as_before_and_knows_its_pictures(kind, tmp_path):
    asked, searched = queries(), gallery()
    built = build_index(kind, searched.features)
    save_index(tmp_path / "a.index", built, searched)
    loaded, content = load_index(tmp_path / "a.index")
    assert loaded.kind == kind
    for allowed in (None, np.arange(60) < 20):
        for old, new in zip(
            built.search(asked.features, 5, allowed), loaded.search(asked.features, 5, allowed), strict=True
        ):
            assert np.array_equal(old, new)
    assert np.array_equal(content.paths, searched.paths)
    assert np.array_equal(content.cameras, searched.cameras)
    assert content.info["checkpoint"] == searched.info["checkpoint"]
    assert content.features.shape == (0, WIDTH)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.index"]


def test_a_feature_file_is_not_an_index(tmp_path):
    save_features(tmp_path / "a.npz", gallery())
    (tmp_path / "a.npz").rename(tmp_path / "a.index")
    with pytest.raises(InputError, match="is not a saved index"):
        load_index(tmp_path / "a.index")


@KINDS
def test_an_index_of_what_no_features_are_is_refused(tmp_path, kind):
    content = gallery()
    features = content.features.copy()
    features[7] = np.nan
    save_index(tmp_path / "a.index", build_index(kind, features), content)
    with pytest.raises(InputError, match=rf"a\.index: row 7 \({content.paths[7]}\) has norm nan, it must be 1"):
        load_index(tmp_path / "a.index")


def test_an_index_of_another_kind_or_size_is_refused(tmp_path):
    flat = build_index("flat", gallery().features)
    content = gallery(count=50)
    save_index(tmp_path / "a.index", flat, content)
    with pytest.raises(InputError, match=r"paths is <U13 \(50,\), it must be \[60\]"):
        load_index(tmp_path / "a.index")
    other = faiss_index.FaissIndex(faiss.IndexLSH(WIDTH, 16), "flat")
    save_index(tmp_path / "a.index", other, as_features(*(np.zeros((0, 12), np.float32), *2 * [np.zeros(0, np.int32)])))
    with pytest.raises(InputError, match="holds a IndexLSH"):
        load_index(tmp_path / "a.index")


@pytest.mark.parametrize("kind", [faiss.IndexFlatL2, lambda width: faiss.IndexHNSWFlat(width, 32, faiss.METRIC_L2)])
def test_an_index_by_another_metric_is_refused(tmp_path, kind):
    content = gallery()
    index = kind(WIDTH)
    index.add(content.features)
    name = "hnsw" if isinstance(index, faiss.IndexHNSWFlat) else "flat"
    save_index(tmp_path / "a.index", faiss_index.FaissIndex(index, name), content)
    with pytest.raises(InputError, match="not an index of flat, hnsw by inner product"):
        load_index(tmp_path / "a.index")
