"""The benchmark's section of search: its figures, and what it says of a row that was stopped."""

from argparse import Namespace

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from parity.measure import galleries, sections

FULL, QUICK = Namespace(quick=False), Namespace(quick=True)


def test_every_kind_of_search_is_measured(monkeypatch):
    monkeypatch.setattr(galleries, "SEARCH_ROWS", {kind: (kind, 30_000) for kind in galleries.KINDS})
    rows = dict(galleries.search(galleries.KINDS, QUICK))
    assert {row["features"] for row in rows.values()} == {300}
    for kind, row in rows.items():
        assert not row["stopped"]
        assert row["recall"] >= (0.9 if "hnsw" in kind else 1)
        assert min(row["ready_s"], row["search_s"]) > 0 <= row["peak_bytes"]
        assert row["bytes"] > 300 * galleries.WIDTH * 4 * 0.9  # Milvus compresses


@pytest.mark.parametrize(("limit", "said"), [(("LIMIT", 0), "stopped after 0 s"), (("MEMORY", 0), "stopped at 0 GiB")])
def test_a_row_that_takes_too_much_is_stopped_and_says_so(monkeypatch, limit, said):
    monkeypatch.setattr(galleries, *limit)
    monkeypatch.setattr(galleries, "SEARCH_ROWS", {"flat": ("flat", 10)})
    ((name, row),) = galleries.search(["flat"], FULL)
    assert row["recall"] is None
    line = sections.SECTIONS["search"].line(name, row)
    assert line.split()[:5] == ["flat", *"----"]
    assert line.endswith(said)


def test_a_bug_is_no_figure(tmp_path):
    (tmp_path / "queries.npy").write_text("no array", encoding="ascii")
    with pytest.raises(InputError, match="exact: its process ended with 1"):
        galleries._measured("exact", str(tmp_path))


def test_pictures_of_an_identity_are_near_each_other_and_others_are_not():
    features = galleries._pictures(np.array([0, 0, 1]), seed=0)
    similarity = features @ features.T
    assert np.diag(similarity) == pytest.approx(1, abs=1e-6)
    assert similarity[0, 1] == pytest.approx(0.5, abs=0.1)
    assert similarity[0, 2] == pytest.approx(0, abs=0.1)
