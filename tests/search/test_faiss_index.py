"""FAISS indexes: as exact as they can be, filtered, saved whole and loaded."""

import dataclasses

import faiss
import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.search import faiss_index
from ms_vireid.search.exact import search_exact
from ms_vireid.search.faiss_index import RECALL, ROUNDING, FaissIndex, build_index, load_index, save_index
from ms_vireid.search.feature_files import layout_of, save_features
from ms_vireid.search.result import NOTHING, nearest

from .galleries import WIDTH, gallery, queries

KINDS = pytest.mark.parametrize("kind", ["flat", "ivf"])


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


def recall(index, asked, searched, count, breadth=None):
    similarity, _ = index.search(asked, count, breadth=breadth)
    exact, _ = search_exact(asked, searched, count)
    return np.mean(similarity >= exact[:, -1:] - ROUNDING)


def strangers(count: int):
    """Features of which none is near another."""
    features = np.random.default_rng(0).standard_normal((count, 64)).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_breadth_trades_recall():
    searched = strangers(2000)
    index = build_index("ivf", searched)
    recalls = [recall(index, searched[:50], searched, 10, breadth) for breadth in (1, 16, 10**5)]
    assert recalls[0] < recalls[1] < recalls[2] == 1


@pytest.mark.parametrize("count", [1, 10, 40, 400])
def test_without_a_breadth_nearly_all_of_the_nearest_are_found(count):
    searched, asked = identities(4000)
    assert recall(build_index("ivf", searched), asked, searched, count) >= RECALL


def test_features_without_neighbours_are_searched_in_all_lists():
    searched = strangers(2000)
    index = build_index("ivf", searched)
    assert str(index) == "ivf index of 2000 pictures, searches 178 of 178 lists"
    assert np.array_equal(index.search(searched[:50], 10)[1], search_exact(searched[:50], searched, 10)[1])


def test_lists_that_hold_too_few_are_not_all_that_is_searched():
    searched, asked = identities(4000)
    index = build_index("ivf", searched)
    _, found = index.search(asked, 1000, breadth=1)
    assert (found != NOTHING).all()
    assert all(len(np.unique(row)) == 1000 for row in found)


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


@pytest.mark.parametrize(
    "change", [{"images": "/caf\udce9"}, {"tree": {"top": "/", "layout": "{}"}}, {"version": None}]
)
def test_an_index_that_could_not_be_read_again_is_not_written(tmp_path, change):
    content = gallery()
    index = build_index("flat", content.features)
    with pytest.raises(InputError, match="its info lacks a valid"):
        save_index(tmp_path / "a.index", index, dataclasses.replace(content, info=content.info | change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("checkpoint", ["model.safetensors", "caf\udce9.safetensors"])
def test_the_layout_of_a_saved_index_is_known_whatever_its_checkpoint_is_called(tmp_path, checkpoint):
    content = gallery()
    tree = {"top": "/people", "layout": "{modality}/{identity}/*"}
    about = content.info | {"checkpoint": content.info["checkpoint"] | {"file": checkpoint}, "tree": tree}
    save_index(tmp_path / "a.index", build_index("flat", content.features), dataclasses.replace(content, info=about))
    assert layout_of(tmp_path / "a.index", "").as_json() == tree


def test_a_feature_file_is_not_an_index(tmp_path):
    save_features(tmp_path / "a.npz", gallery())
    (tmp_path / "a.npz").rename(tmp_path / "a.index")
    with pytest.raises(InputError, match="is not a saved index"):
        load_index(tmp_path / "a.index")


@KINDS
def test_an_index_of_what_no_features_are_is_refused(tmp_path, kind):
    content = gallery()
    built = build_index(kind, content.features)
    for rows, features in faiss_index._stored(built.index):
        features[rows == 7] = np.nan
    save_index(tmp_path / "a.index", built, content)
    with pytest.raises(InputError, match=rf"a\.index: row 7 \({content.paths[7]}\) has norm nan instead of 1"):
        load_index(tmp_path / "a.index")


def test_an_index_of_another_size_is_refused(tmp_path):
    save_index(tmp_path / "a.index", build_index("flat", gallery().features), gallery(count=50))
    with pytest.raises(InputError, match=r"paths is <U13 \(50,\); it must be \[60\]"):
        load_index(tmp_path / "a.index")


OTHERS = {  # FAISS's description, what the file says it is, and what it is
    "SQ8": ("flat", "IndexScalarQuantizer"),
    "HNSW32": ("hnsw of groups", "IndexHNSWFlat"),
    "Flat": ("ivf", "IndexFlatIP"),
    "L2 Flat": ("flat", "IndexFlatL2"),
    "L2 IVF4,Flat": ("ivf", "IndexIVFFlat"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_index_of_another_kind_is_refused_with_how_to_make_one(tmp_path, name):
    metric = faiss.METRIC_L2 if name.startswith("L2") else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(WIDTH, name.removeprefix("L2 "), metric)
    index.train(gallery().features)
    index.add(gallery().features)
    kind, held = OTHERS[name]
    path = tmp_path / "a.index"
    save_index(path, FaissIndex(index, kind), gallery())
    with pytest.raises(InputError) as refused:
        load_index(path)
    assert str(refused.value) == (
        f"{path}: holds a {held}, not an index of flat, ivf by inner product; rebuild it from the gallery's features: "
        f"--gallery F.npz --index ivf --save-index {path}"
    )


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
    index = build_index("ivf", searched)
    asked = searched[others[:200]]
    assert np.array_equal(index.search(asked, 10)[1][:, 0], others[:200])
    assert recall(index, asked, searched, 10) >= RECALL
    of_crowd = np.setdiff1d(np.arange(len(searched)), others)[:20]
    similarity, _ = index.search(searched[of_crowd], 10)
    assert similarity == pytest.approx(search_exact(searched[of_crowd], searched, 10)[0], abs=1e-6)


def in_a_cone(count: int = 8000, width: int = 64, seed: int = 0):
    """A gallery of people, all of one modality; and functions that give queries of another: the same people shifted by
    `gap` rows' lengths, and opposite ones."""
    rng = np.random.default_rng(seed)
    middle, people, offset = 1.5 * rng.standard_normal(width), rng.standard_normal((count // 16, width)), None

    def unit(rows):
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    searched = unit(middle + people.repeat(16, 0) + 0.6 * rng.standard_normal((count, width)))
    offset = unit(rng.standard_normal((1, width)))
    asked = searched[rng.integers(0, count, 300)]
    return searched, lambda gap: unit(asked + gap * offset), unit(-asked)


@pytest.mark.parametrize("gap", [1, 4, None])
def test_queries_of_another_modality_find_what_exact_search_finds(gap):
    searched, shifted, opposite = in_a_cone()
    asked = opposite if gap is None else shifted(gap)
    index = build_index("ivf", searched)
    assert index.far_away(asked).all()
    assert recall(index, asked, searched, 10) >= RECALL
    assert recall(dataclasses.replace(index, measured=-1.0), asked, searched, 10) < RECALL


def test_an_index_that_was_measured_by_a_sample_searches_few_lists_for_its_like():
    searched, shifted, _ = in_a_cone()
    asked = shifted(1)
    index = build_index("ivf", searched, asked[::2])
    assert index.index.nprobe < index.index.nlist
    assert index.far_away(asked).mean() < 0.05
    assert recall(index, asked, searched, 10) >= RECALL
    assert not index.far_away(searched).any()


@pytest.mark.parametrize("measured", [float("nan"), "0.5", True, None])
def test_a_saved_index_knows_what_it_was_measured_by(tmp_path, measured):
    features, content = in_a_cone(800, WIDTH)[0], gallery(count=800)
    content = dataclasses.replace(content, features=features)
    built, path = build_index("ivf", features), tmp_path / "a.index"
    save_index(path, built, content)
    assert load_index(path)[0].measured == built.measured
    save_index(path, dataclasses.replace(built, measured=float("inf")), content)
    assert load_index(path)[0].measured == float("inf")  # as an earlier version saved it
    content.info["measured"] = measured
    save_index(path, dataclasses.replace(built, measured=float("inf")), content)
    with pytest.raises(InputError, match=r"a\.index: its measured similarity is .*, not a number; make one"):
        load_index(path)


def with_ids(index, changed):
    """The same lists with other row numbers."""
    for rows, _ in faiss_index._stored(index):
        rows[:] = changed(rows)


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: with_ids(index, lambda rows: np.where(rows == 3, 4, rows)),
        lambda index: with_ids(index, lambda rows: rows + 1),
        lambda index: with_ids(index, lambda rows: np.where(rows == 0, -1, rows)),
        lambda index: index.quantizer.reset(),
        lambda index: setattr(index, "nprobe", 0),
    ],
    ids=["a row twice", "rows beyond", "a negative row", "no centres", "nothing to search"],
)
def test_damaged_lists_are_refused(tmp_path, damage):
    content = gallery()
    built = build_index("ivf", content.features)
    save_index(tmp_path / "a.index", built, content)
    assert len(load_index(tmp_path / "a.index")[0]) == 60
    damage(built.index)
    save_index(tmp_path / "a.index", built, content)
    with pytest.raises(InputError, match=r"a\.index: its lists do not fit its 60 features; make one with --save-index"):
        load_index(tmp_path / "a.index")
