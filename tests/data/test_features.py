"""Feature files that are read from disk block by block."""

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.inference.feature_files import RowsOnDisk, load_features, open_features, save_features

from ..search.galleries import gallery


@pytest.fixture
def path(tmp_path):
    save_features(tmp_path / "features.npz", gallery())
    return tmp_path / "features.npz"


def test_any_rows_are_those_of_the_file_read_whole(path):
    opened, loaded = open_features(path), load_features(path)
    assert isinstance(opened.features, RowsOnDisk)
    assert (opened.features.shape, len(opened), len(opened.features)) == ((60, 12), 60, 60)
    for rows in (slice(None), slice(0, 1), slice(17, 40), slice(50, 100), slice(60, 70)):
        assert np.array_equal(opened.features[rows], loaded.features[rows])
    assert np.array_equal(opened.paths, loaded.paths)
    assert opened.info == loaded.info


def test_a_compressed_file_is_read_into_memory(path):
    with np.load(path) as archive:
        np.savez_compressed(path, **dict(archive))
    assert np.array_equal(open_features(path).features, gallery().features)


def test_rows_are_checked_as_they_are_read(path):
    content = gallery()
    content.features[41] *= 2
    save_features(path, content)
    opened = open_features(path)
    assert len(opened.features[:41]) == 41
    with pytest.raises(InputError, match=r"features.npz: row 41 \(cam1/0041.jpg\) has norm 2"):
        opened.features[30:50]


def test_a_file_that_has_shrunk_is_refused(path):
    opened = open_features(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"ends before row 60; extract again"):
        opened.features[:]


@pytest.mark.parametrize("read", [open_features, load_features])
def test_other_arrays_are_refused(path, read):
    with np.load(path) as archive:
        held = dict(archive)
    for changed, said in (
        ({"features": held["features"].astype(np.float64)}, "features are float64"),
        ({"features": held["features"][:-1]}, r"paths is <U13 \(60,\), it must be \[59\]"),
        ({"features": held["features"][0]}, r"features are float32 \(12,\)"),
    ):
        np.savez(path, **(held | changed))
        with pytest.raises(InputError, match=said):
            read(path)
    del held["features"]
    np.savez(path, **held)
    with pytest.raises(InputError, match="lacks features"):
        read(path)
