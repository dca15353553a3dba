from pathlib import Path

import numpy as np
import pytest

from ms_vireid.command.errors import InputError, refuse
from ms_vireid.config import DataConfig
from ms_vireid.data.folder import read_folder
from ms_vireid.data.read import read_data, validate_for_training
from ms_vireid.data.records import image_set
from ms_vireid.data.regdb import read_regdb
from ms_vireid.data.sysu_mm01 import read_sysu_mm01
from ms_vireid.data.validation import check_pictures, check_training_identities, list_pictures

from . import tree


@pytest.fixture(scope="module")
def sysu_root(tmp_path_factory):
    return tree.write_sysu_mm01(tmp_path_factory.mktemp("sysu"))


@pytest.fixture(scope="module")
def sysu(sysu_root):
    return read_sysu_mm01(sysu_root)


@pytest.fixture(scope="module")
def regdb(tmp_path_factory):
    return read_regdb(tree.write_regdb(tmp_path_factory.mktemp("regdb")), trial=1)


@pytest.fixture(scope="module")
def folder_root(tmp_path_factory):
    return tree.write_folder(tmp_path_factory.mktemp("folder"))


def counted(*splits: dict) -> dict[tuple[int, int], int]:
    return {(identity, camera): n for split in splits for identity, seen in split.items() for camera, n in seen.items()}


def found(images) -> dict[tuple[int, int], int]:
    pairs = zip(images.identities.tolist(), images.cameras.tolist(), strict=True)
    counts: dict[tuple[int, int], int] = {}
    for pair in pairs:
        counts[pair] = counts.get(pair, 0) + 1
    return counts


# SYSU-MM01


def test_sysu_trains_on_train_and_val_identities(sysu):
    assert found(sysu.train) == counted(tree.SYSU_TRAIN, tree.SYSU_VAL)


def test_sysu_tests_on_test_identities(sysu):
    assert found(sysu.test) == counted(tree.SYSU_TEST)


def test_sysu_cameras_3_and_6_are_infrared(sysu):
    assert np.array_equal(sysu.train.infrared, np.isin(sysu.train.cameras, (3, 6)))


def test_sysu_cameras_and_identities_are_those_of_the_path(sysu):
    for path, identity, camera in zip(sysu.test.paths, sysu.test.identities, sysu.test.cameras, strict=True):
        assert path.parent == sysu.root / f"cam{camera}" / f"{identity:04d}"


def test_sysu_upper_case_suffixes_and_odd_names_are_pictures(sysu):
    assert {p.name for p in (*sysu.train.paths, *sysu.test.paths)} == set(tree.SYSU_NAMES)


def test_sysu_follows_the_sysu_protocol(sysu):
    assert sysu.protocol == "sysu_mm01"


def test_sysu_lists_may_have_spaces_and_a_trailing_comma(tmp_path):
    tree.write_sysu_mm01(tmp_path)
    (tmp_path / "exp" / "test_id.txt").write_text(" 6, 333,\n")
    assert set(read_sysu_mm01(tmp_path).test.identities) == {6, 333}


def test_sysu_an_identity_in_train_and_val_is_read_once(tmp_path):
    tree.write_sysu_mm01(tmp_path)
    (tmp_path / "exp" / "val_id.txt").write_text("1,4\n")
    assert found(read_sysu_mm01(tmp_path).train) == counted(tree.SYSU_TRAIN, tree.SYSU_VAL)


# RegDB


def test_regdb_counts(regdb):
    expected = [2 * tree.REGDB_PICTURES * len(tree.REGDB_IDENTITIES[split]) for split in ("train", "test")]
    assert [len(regdb.train), len(regdb.test)] == expected


def test_regdb_modalities_are_the_folders(regdb):
    assert [p.relative_to(regdb.root).parts[0] for p in regdb.train.paths] == [
        "Thermal" if infrared else "Visible" for infrared in regdb.train.infrared
    ]


def test_regdb_visible_is_camera_1_and_thermal_camera_2(regdb):
    assert np.array_equal(regdb.train.cameras, 1 + regdb.train.infrared)


def test_regdb_identities_are_the_labels_of_the_lists(regdb):
    assert [p.parent.name for p in regdb.test.paths] == [f"test{label}" for label in regdb.test.identities]


def test_regdb_reads_the_split_asked_for(tmp_path):
    tree.write_regdb(tmp_path, trial=1)
    tree.write_regdb(tmp_path, trial=10)
    listing = tmp_path / "idx" / "test_thermal_10.txt"
    listing.write_text(listing.read_text().splitlines()[0] + "\n")
    assert np.count_nonzero(read_regdb(tmp_path, trial=10).test.infrared) == 1


def test_regdb_paths_may_have_spaces(tmp_path):
    tree.write_regdb(tmp_path)
    tree.write_picture(tmp_path / "Visible" / "a b.bmp")
    (tmp_path / "idx" / "test_visible_1.txt").write_text("Visible/a b.bmp 0\n")
    assert tmp_path / "Visible" / "a b.bmp" in read_regdb(tmp_path, trial=1).test.paths


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Visible/train0/visible_0.bmp", r"train_visible_1\.txt: .*1 \(line 2 'Visible/train0/visible_0\.bmp'"),
        ("Visible/train0/visible_0.bmp one", r"train_visible_1\.txt: .*line 2 '.* one'"),
        ("Visible/train0/visible_0.bmp -1", r"train_visible_1\.txt: .*line 2 '.* -1'"),
        ("Visible/train0/visible_0.bmp 99999999999", r"train_visible_1\.txt: .*line 2 '.* 99999999999'"),
    ],
)
def test_regdb_a_wrong_line_is_refused_with_its_number(tmp_path, line, says):
    tree.write_regdb(tmp_path)
    (tmp_path / "idx" / "train_visible_1.txt").write_text(f"Visible/train0/visible_0.bmp 0\n{line}\n")
    with pytest.raises(InputError, match=says):
        read_regdb(tmp_path, trial=1)


# folder


@pytest.mark.parametrize(("fraction", "tested"), [(0.01, 1), (0.5, 2), (0.6, 3), (0.99, 3)])
def test_folder_tests_on_the_last_identities_and_leaves_one_on_either_side(folder_root, fraction, tested):
    data = read_folder(folder_root, fraction)
    names = {p.parent.name for p in data.test.paths}
    assert names == set(["anna", "ben", "cleo", "dora"][-tested:])


def test_folder_splits_no_identity(folder_root):
    data = read_folder(folder_root, 0.5)
    assert not set(data.train.identities) & set(data.test.identities)


def test_folder_modalities_are_the_folders(folder_root):
    train = read_folder(folder_root, 0.5).train
    assert [p.parts[-3] for p in train.paths] == ["infrared" if infrared else "visible" for infrared in train.infrared]


# what all readers return


def test_labels_are_dense_from_zero_in_order_of_identity(sysu):
    assert dict(zip(sysu.train.identities.tolist(), sysu.train.labels.tolist(), strict=True)) == {1: 0, 4: 1, 5: 2}


def test_labels_are_int32(sysu):
    assert sysu.train.labels.dtype == np.int32


@pytest.mark.parametrize("index", [np.array([2, 0]), np.arange(100) == 3], ids=["integers", "mask"])
def test_a_subset_keeps_rows_together(index):
    images = image_set([(Path(str(i)), i, 1 + i, i % 2 == 0) for i in range(100)])
    subset = images.subset(index)
    rows = zip(subset.paths, subset.identities, subset.cameras, subset.infrared, strict=True)
    assert [(int(str(p)), i, c - 1, 0 if r else 1) for p, i, c, r in rows] == [
        (i, i, i, i % 2) for i in np.arange(100)[index]
    ]


def test_the_checksum_does_not_depend_on_the_root(sysu, tmp_path):
    assert read_sysu_mm01(tree.write_sysu_mm01(tmp_path / "elsewhere")).checksum() == sysu.checksum()


def test_the_checksum_changes_with_a_changed_file(sysu, tmp_path):
    tree.write_sysu_mm01(tmp_path)
    tree.truncate(tmp_path / "cam1" / "0001" / list_pictures(tmp_path / "cam1" / "0001")[0].name)
    assert read_sysu_mm01(tmp_path).checksum() != sysu.checksum()


def test_the_checksum_changes_with_a_renamed_file(sysu, tmp_path):
    tree.write_sysu_mm01(tmp_path)
    path = list_pictures(tmp_path / "cam1" / "0001")[0]
    path.rename(path.with_stem("renamed"))
    assert read_sysu_mm01(tmp_path).checksum() != sysu.checksum()


def test_a_data_set_without_a_root_is_refused():
    with pytest.raises(InputError, match=r"data\.root is not set: give --data-root"):
        read_data(DataConfig(name="sysu_mm01"))


@pytest.mark.parametrize("name", ["sysu_mm01", "regdb", "llcm", "folder"])
def test_the_configuration_chooses_the_reader(name, tmp_path):
    getattr(tree, f"write_{name}")(tmp_path)
    assert read_data(DataConfig(name=name, root=tmp_path)).name == name


# validation


def images_of(counts: dict[int, tuple[int, int]]):
    """identity -> (visible, infrared) pictures"""
    return image_set(
        [
            (Path(f"{i}-{r}-{n}"), i, 1 + r, bool(r))
            for i, both in counts.items()
            for r in (0, 1)
            for n in range(both[r])
        ]
    )


def test_enough_pictures_of_both_modalities_give_no_warning():
    assert check_training_identities(images_of({7: (2, 2), 9: (3, 2)}), 2, Path("root")) is None


def test_identities_with_fewer_than_k_pictures_are_counted_and_named_in_a_warning():
    warning = check_training_identities(images_of({7: (1, 4), 8: (4, 4), 9: (4, 3)}), 4, Path("root"))
    assert "fewer than 4" in warning
    assert "2 (7 has 1 visible, 9 has 3 infrared)" in warning


@pytest.mark.parametrize(("counts", "modality"), [((0, 2), "visible"), ((2, 0), "infrared")])
def test_an_identity_without_one_modality_is_refused(counts, modality):
    with pytest.raises(InputError, match=rf"root: training identities without {modality} pictures: 1 \(9\)"):
        check_training_identities(images_of({7: (2, 2), 9: counts}), 2, Path("root"))


def test_a_training_set_without_pictures_is_refused():
    with pytest.raises(InputError, match="root: the training set holds no pictures"):
        check_training_identities(image_set([]), 2, Path("root"))


def test_pictures_that_are_whole_pass(sysu):
    check_pictures(sysu.test)


def test_empty_foreign_and_missing_pictures_are_all_named(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    paths = [tree.write_picture(tmp_path / "good.jpg"), *(tmp_path / f"{n}.jpg" for n in ("empty", "text", "gone"))]
    images = image_set([(path, 1, 1, False) for path in paths])
    with pytest.raises(InputError) as refused:
        check_pictures(images)
    assert str(refused.value).startswith(
        f"unreadable pictures: 3 ({tmp_path}/empty.jpg is empty, {tmp_path}/text.jpg cannot be read, "
        f"{tmp_path}/gone.jpg does not exist)"
    )


def test_of_many_problems_ten_are_named_and_the_rest_counted():
    with pytest.raises(InputError, match=r"^what: 12 \(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 more\); do this$"):
        refuse(map(str, range(12)), "what", "do this")


def test_no_problem_is_not_refused():
    refuse([], "what", "do this")


def test_only_pictures_are_listed_sorted_by_name(tmp_path):
    for name in ("b.jpg", "a.PNG", "Thumbs.db", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [p.name for p in list_pictures(tmp_path)] == ["a.PNG", "b.jpg"]


def test_the_odd_tree_trains_with_a_warning(sysu):
    assert "4 has 1 visible" in validate_for_training(sysu, num_instances=2)


def test_test_pictures_are_checked_before_training(tmp_path):
    data = read_sysu_mm01(tree.write_sysu_mm01(tmp_path))
    data.test.paths[0].write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        validate_for_training(data, num_instances=2)
