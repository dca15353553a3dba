"""A text where a path is meant: what Python users hand over."""

import numpy as np

from ms_vireid.checkpoints.weights import read_checkpoint
from ms_vireid.data import readers
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.search.feature_files import load_features, save_features
from ms_vireid.search.start import load_trained
from tests.data import tree
from tests.search.galleries import gallery
from tests.tiny_models import write_checkpoint


def test_checkpoints_and_run_folders(tmp_path):
    path = write_checkpoint(tmp_path / "run/model.safetensors", "pmt", tmp_path / "data")
    assert read_checkpoint(str(path)).arrays.keys() == read_checkpoint(path).arrays.keys()
    assert [trained.path for trained in load_trained([str(path), str(path.parent)])] == [path, path]
    assert RunFolder(str(path.parent)).read_record().data.root == str(tmp_path / "data")


def test_feature_files(tmp_path):
    save_features(str(tmp_path / "a.npz"), gallery())
    assert np.array_equal(load_features(str(tmp_path / "a.npz")).features, gallery().features)


def test_data_sets(tmp_path):
    for name, write, options in (
        ("sysu_mm01", tree.write_sysu_mm01, ()),
        ("regdb", tree.write_regdb, (1,)),
        ("llcm", tree.write_llcm, ()),
        ("folder", tree.write_folder, (0.5,)),
    ):
        root = write(tmp_path / name)
        reader = getattr(readers, f"read_{name}")
        assert reader(str(root), *options).checksum == reader(root, *options).checksum
