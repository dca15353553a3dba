"""FAISS indexes: as exact as they can be, filtered, saved whole and loaded."""

import json
import re

import faiss
import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.inference.feature_files import read_archive, save_features
from ms_vireid.search import faiss_index, graph
from ms_vireid.search.faiss_index import build_index, load_index, save_index
from ms_vireid.search.local_gallery import search_exact
from ms_vireid.search.result import NOTHING, RECALL, ROUNDING, nearest

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
    built = build_index(kind, content.features)
    place = 7 if built.graph is None else np.flatnonzero(built.graph.rows == 7)[0]
    graph.stored_features(built.index)[place] = np.nan
    save_index(tmp_path / "a.index", built, content)
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


def crowds(width: int, apart: float, sizes=(1000, 2500, 6000), others=1500, seed=0):
    """A gallery of groups of rows that lie `apart` from the first of theirs, among others, in any order; and which
    rows are the others."""
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal((others, width))]
    parts += [rng.standard_normal(width) + apart * rng.standard_normal((size, width)) for size in sizes]
    rows = np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]).astype(np.float32)
    order = rng.permutation(len(rows))
    return rows[order], np.flatnonzero(order < others)


@pytest.mark.parametrize("apart", [0.0, 1e-4, 1e-3])
@pytest.mark.parametrize("width", [16, 256])
def test_crowds_of_rows_that_are_alike_hide_nothing(width, apart):
    searched, others = crowds(width, apart)
    index = build_index("hnsw", searched)
    asked = searched[others[:200]]
    similarity, found = index.search(asked, 10)
    exact, _ = search_exact(asked, searched, 10)
    assert np.array_equal(found[:, 0], others[:200])
    assert np.mean(similarity >= exact[:, -1:] - ROUNDING) >= RECALL
    assert index.graph.recall >= RECALL
    assert index.note() is None
    of_crowd = np.setdiff1d(np.arange(len(searched)), others)[:20]
    similarity, _ = index.search(searched[of_crowd], 10)
    assert similarity == pytest.approx(search_exact(searched[of_crowd], searched, 10)[0], abs=1e-6)


def test_without_groups_crowds_hide_what_is_asked_for_and_this_is_said(monkeypatch):
    monkeypatch.setattr(graph, "ALIKE", 1.1)
    searched, others = crowds(16, 1e-4)
    index = build_index("hnsw", searched)
    _, found = index.search(searched[others[:200]], 1)
    assert np.mean(found[:, 0] == others[:200]) < 0.95
    assert re.fullmatch(
        r"hnsw finds [\d.]+ % of the nearest pictures in a sample, less than 99\.9 %, at breadth 1024; make the index "
        r"anew with --index flat, or search without one; or give a larger --breadth",
        index.note(),
    )


def saved_with(tmp_path, **changes):
    """An index file of crowds with other arrays or info; None leaves one out."""
    searched, _ = crowds(16, 1e-4, (100,), 60)
    built = build_index("hnsw", searched)
    ones = np.ones(len(searched), np.int32)
    content = as_features(searched, ones, ones)
    save_index(tmp_path / "whole.index", built, content)
    members = read_archive(tmp_path / "whole.index", "an index", "")
    info = json.loads(str(members["info"])) | changes.pop("info", {})
    members |= {"info": np.array(json.dumps(info))} | changes
    np.savez(tmp_path / "a.npz", **{name: array for name, array in members.items() if array is not None})
    (tmp_path / "a.npz").rename(tmp_path / "a.index")
    return tmp_path / "a.index", built


def _graph_of(built):
    return built.graph.rows.copy(), built.graph.members.copy()


@pytest.mark.parametrize(
    ("name", "change"),
    {
        "rows": lambda rows, members: (rows[:-1], members),
        "rows twice": lambda rows, members: (np.where(rows == 3, 4, rows), members),
        "rows beyond": lambda rows, members: (rows + 1, members),
        "rows negative": lambda rows, members: (np.where(rows == 0, -1, rows), members),
        "rows as floats": lambda rows, members: (rows.astype(float), members),
        "rows of two dimensions": lambda rows, members: (rows[None], members),
        "no rows": lambda rows, members: (None, members),
        "no members": lambda rows, members: (rows, None),
        "members empty": lambda rows, members: (rows, members[:0]),
        "members short": lambda rows, members: (rows, members[:-1]),
        "members down": lambda rows, members: (rows, np.concatenate([members[:1], members[:1] - 5, members[2:]])),
        "members beyond": lambda rows, members: (rows, members + 1),
        "members text": lambda rows, members: (rows, members.astype(str)),
    }.items(),
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_damaged_groups_are_refused(tmp_path, name, change):
    path, built = saved_with(tmp_path)
    assert load_index(path)[0].graph.recall == built.graph.recall
    rows, members = change(*_graph_of(built))
    path, _ = saved_with(tmp_path, rows=rows, members=members)
    with pytest.raises(InputError, match=r"a\.index: its rows and members do not fit its 160 features; make it with"):
        load_index(path)


@pytest.mark.parametrize(
    "said", [None, {}, {"breadth": 0, "recall": 1.0}, {"breadth": 128}, {"breadth": 128, "recall": 2}, [128, 1]]
)
def test_a_damaged_breadth_or_recall_is_refused(tmp_path, said):
    path, _ = saved_with(tmp_path, info={"hnsw": said})
    with pytest.raises(InputError, match=r"a\.index: its info lacks the breadth and recall of its index; make it with"):
        load_index(path)


def test_an_index_of_an_earlier_version_is_searched_and_said_to_be_one(tmp_path):
    searched, asked = identities(2000)
    index = faiss.IndexHNSWFlat(64, 32, faiss.METRIC_INNER_PRODUCT)
    index.add(searched)
    ones = np.ones(2000, np.int32)
    earlier = faiss_index.FaissIndex(index, "hnsw", graph.Graph.of_nodes(index))
    save_index(tmp_path / "a.index", earlier, as_features(searched, ones, ones))
    loaded, content = load_index(tmp_path / "a.index")
    assert content.info["index"] == "hnsw"
    assert "earlier version's, and its recall was not measured; make it anew" in loaded.note()
    assert np.array_equal(loaded.search(asked, 10)[1], earlier.search(asked, 10)[1])
    _, exact = search_exact(asked, searched, 1)
    assert np.mean(loaded.search(asked, 1, breadth=512)[1] == exact) > 0.9
