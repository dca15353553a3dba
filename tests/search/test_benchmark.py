"""The benchmark, made small: what it prints, writes and leaves."""

import json
import re
import sys

import numpy as np
import pytest

from ms_vireid.command.running import run
from ms_vireid.inference.feature_files import load_features
from ms_vireid.search import benchmark


def test_its_features_are_clustered_like_identities(tmp_path):
    benchmark.write_gallery(tmp_path, 4000)
    gallery, queries = load_features(tmp_path / "gallery.npz"), load_features(tmp_path / "query.npz")
    assert gallery.features.shape == (4000, 768)
    assert queries.features.shape == (100, 768)
    similarity = queries.features @ gallery.features.T
    same = queries.identities[:, None] == gallery.identities
    assert same.sum(axis=1).tolist() == [20] * 100
    assert similarity[same].mean() == pytest.approx(1 / (1 + benchmark.SCATTER**2), abs=0.02)
    assert np.abs(similarity[~same]).mean() < 0.05


def test_it_prints_time_memory_and_recall_and_leaves_only_its_figures(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(
        sys, "argv", ["benchmark", "--quick", "--folder", str(tmp_path), "--json", f"{tmp_path}/b.json"]
    )
    write_gallery = benchmark.write_gallery
    monkeypatch.setattr(benchmark, "write_gallery", lambda folder, size: write_gallery(folder, size // 5))
    run(benchmark.main)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["exact", "flat", "hnsw"]
    for line in lines[1:]:
        assert re.search(r"search \d+\.\d{3} s, peak memory \d\.\d\d GiB \(the features are 0\.\d\d GiB\)", line)
    figures = json.loads((tmp_path / "b.json").read_text())
    assert figures["flat"]["recall"] == 1
    assert figures["hnsw"]["recall"] >= 0.95
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_a_recall_that_is_too_low_ends_with_an_error(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--folder", str(tmp_path)])
    monkeypatch.setattr(benchmark, "write_gallery", lambda folder, size: None)
    figures = {"search_s": 1.0, "peak_gib": 1.0, "features_gib": 1.0, "recall": 0.9}
    monkeypatch.setattr(benchmark, "_measure", lambda name, folder: figures)
    with pytest.raises(SystemExit) as stopped:
        run(benchmark.main)
    assert stopped.value.code == 2
    assert "recall@10 of HNSW is 0.900, below 0.95" in capfd.readouterr().err
