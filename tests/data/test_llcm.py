import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.data.llcm import read_llcm
from ms_vireid.data.read import validate_for_training

from . import tree


@pytest.fixture(scope="module")
def llcm(tmp_path_factory):
    return read_llcm(tree.write_llcm(tmp_path_factory.mktemp("llcm")))


def counted(split: dict) -> dict[tuple[int, int, bool], int]:
    return {
        (identity, camera, modality == "nir"): count
        for identity, seen in split.items()
        for modality, cameras in seen.items()
        for camera, count in cameras.items()
    }


def found(images) -> dict[tuple[int, int, bool], int]:
    rows = list(zip(images.identities.tolist(), images.cameras.tolist(), images.infrared.tolist(), strict=True))
    return {row: rows.count(row) for row in rows}


def test_training_pictures_are_those_of_the_lists_with_the_cameras_of_their_names(llcm):
    assert found(llcm.train) == counted(tree.LLCM_TRAIN)


def test_test_pictures_are_those_of_the_cameras_folders(llcm):
    assert found(llcm.test) == counted(tree.LLCM_TEST)


def test_every_picture_is_where_it_says(llcm):
    assert all(path.is_file() for path in (*llcm.train.paths, *llcm.test.paths))
    for path, identity, camera, infrared in zip(
        llcm.test.paths, llcm.test.identities, llcm.test.cameras, llcm.test.infrared, strict=True
    ):
        folder = "test_nir" if infrared else "test_vis"
        assert path.parent == llcm.root / folder / f"cam{camera}" / f"{identity:04d}"


def test_it_follows_its_own_protocol(llcm):
    assert (llcm.name, llcm.protocol) == ("llcm", "llcm")


def test_the_tree_trains_with_a_warning_about_few_pictures(llcm):
    assert "fewer than 4" in validate_for_training(llcm, num_instances=4)


def test_labels_are_dense(llcm):
    assert np.array_equal(np.unique(llcm.train.labels), [0, 1])


def test_infrared_pictures_of_camera_3_are_not_looked_for(tmp_path):
    tree.write_llcm(tmp_path)
    tree.write_picture(tmp_path / "test_nir" / "cam3" / "0003" / "0003_c03_s1_f1_nir.jpg")
    assert found(read_llcm(tmp_path).test) == counted(tree.LLCM_TEST)


@pytest.mark.parametrize("missing", ["vis", "nir", "test_vis", "test_nir", "idx"])
def test_a_missing_folder_is_refused(tmp_path, missing):
    tree.write_llcm(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"{missing}: no such folder; data\.root must hold vis, nir, test_vis"):
        read_llcm(tmp_path)


@pytest.mark.parametrize("missing", ["train_vis.txt", "train_nir.txt", "test_id.txt"])
def test_a_missing_list_is_refused(tmp_path, missing):
    tree.write_llcm(tmp_path)
    (tmp_path / "idx" / missing).unlink()
    with pytest.raises(InputError, match=rf"{missing}: cannot be read"):
        read_llcm(tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("vis/0001/0001_c01_s1_f1_vis.jpg", r"train_vis\.txt: lines that are not 'path label'.*1 \(line 2 "),
        ("vis/0001/0001_c01_s1_f1_vis.jpg one", r"train_vis\.txt: .*line 2 '.* one'"),
        ("vis/0001/photo.jpg 0", r"train_vis\.txt: pictures without a camera.*1 \(line 2 'vis/0001/photo\.jpg'\)"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, says):
    tree.write_llcm(tmp_path)
    (tmp_path / "idx" / "train_vis.txt").write_text(f"vis/0001/0001_c01_s101_f0_vis.jpg 0\n{line}\n")
    with pytest.raises(InputError, match=says) as refused:
        read_llcm(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("3,three,351", r"test_id\.txt:1: fields that are not identities: 1 \('three'\)"),
        ("\n", r"test_id\.txt:1: lists no identity"),
        ("3,4,5", r"identities without a picture under any camera: 2 \(0004, 0005\)"),
    ],
)
def test_a_wrong_list_of_identities_is_refused(tmp_path, content, says):
    tree.write_llcm(tmp_path)
    (tmp_path / "idx" / "test_id.txt").write_text(content)
    with pytest.raises(InputError, match=says):
        read_llcm(tmp_path)
