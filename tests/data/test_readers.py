import hashlib
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, DataConfig, load_config
from ms_vireid.data.picture_paths import find_pictures
from ms_vireid.data.readers import read_data, read_folder, read_llcm, read_regdb, read_sysu_mm01
from ms_vireid.data.records import image_set
from ms_vireid.data.validation import (
    check_pictures,
    check_training_identities,
    list_pictures,
    passed_over,
    validate_for_training,
)

from . import tree


@pytest.fixture(scope="module")
def sysu(tmp_path_factory):
    return read_sysu_mm01(tree.write_sysu_mm01(tmp_path_factory.mktemp("sysu")))


@pytest.fixture(scope="module")
def regdb(tmp_path_factory):
    return read_regdb(tree.write_regdb(tmp_path_factory.mktemp("regdb")), trial=1)


@pytest.fixture(scope="module")
def llcm(tmp_path_factory):
    return read_llcm(tree.write_llcm(tmp_path_factory.mktemp("llcm")))


def found(images):
    """How many pictures there are of each identity, camera and modality."""
    return Counter(zip(images.identities.tolist(), images.cameras.tolist(), images.infrared.tolist(), strict=True))


def of_sysu(*splits):
    return {(i, c, c in (3, 6)): n for split in splits for i, seen in split.items() for c, n in seen.items()}


def of_llcm(split):
    return {
        (identity, camera, modality == "nir"): count
        for identity, seen in split.items()
        for modality, cameras in seen.items()
        for camera, count in cameras.items()
    }


# SYSU-MM01


def test_sysu_trains_on_train_and_val_identities_and_tests_on_the_others(sysu):
    assert found(sysu.train) == of_sysu(tree.SYSU_TRAIN, tree.SYSU_VAL)
    assert found(sysu.test) == of_sysu(tree.SYSU_TEST)
    assert {path.name for path in sysu.pictures} == set(tree.SYSU_NAMES)
    for path, identity, camera in zip(sysu.test.paths, sysu.test.identities, sysu.test.cameras, strict=True):
        assert path.parent == sysu.root / f"cam{camera}" / f"{identity:04d}"
    assert dict(zip(sysu.train.identities.tolist(), sysu.train.labels.tolist(), strict=True)) == {1: 0, 4: 1, 5: 2}


def test_sysu_lists_may_have_spaces_trailing_commas_and_an_identity_twice(tmp_path):
    tree.write_sysu_mm01(tmp_path)
    (tmp_path / "exp" / "test_id.txt").write_text(" 6, 333,\n")
    (tmp_path / "exp" / "val_id.txt").write_text("1,4\n")
    data = read_sysu_mm01(tmp_path)
    assert set(data.test.identities) == {6, 333}
    assert found(data.train) == of_sysu(tree.SYSU_TRAIN, tree.SYSU_VAL)


# RegDB


def test_regdb_identities_modalities_and_cameras_are_those_of_lists_and_folders(regdb):
    for split in ("train", "test"):
        images, identities = getattr(regdb, split), tree.REGDB_IDENTITIES[split]
        expected = {(i, 1 + dark, bool(dark)): tree.REGDB_PICTURES for i in identities for dark in (0, 1)}
        assert found(images) == expected
        for path, identity, infrared in zip(images.paths, images.identities, images.infrared, strict=True):
            assert path.parent == regdb.root / ("Thermal" if infrared else "Visible") / f"{split}{identity}"


def test_regdb_reads_the_split_asked_for_also_names_with_spaces(tmp_path):
    tree.write_regdb(tmp_path, trial=1)
    tree.write_regdb(tmp_path, trial=10)
    names = ["Thermal/test0/a b.bmp", "Thermal/test1/thermal_0.bmp"]
    tree.write_picture(tmp_path / names[0])
    (tmp_path / "idx/test_thermal_10.txt").write_text(f"{names[0]} 0\n{names[1]} 1\n")
    images = read_regdb(tmp_path, trial=10).test
    assert [path for path, dark in zip(images.paths, images.infrared, strict=True) if dark] == [
        tmp_path / name for name in names
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Visible/train0/visible_0.bmp", r"train_visible_1\.txt: .*1 \(line 2 'Visible/train0/visible_0\.bmp'"),
        ("Visible/train0/visible_0.bmp one", r"train_visible_1\.txt: .*line 2 '.* one'"),
        ("Visible/train0/visible_0.bmp 99999999999", r"train_visible_1\.txt: .*line 2 '.* 99999999999'"),
        (
            "Visible/gone.bmp 0",
            r"train_visible_1\.txt: lines that name no file under .*1 \(line 2 'Visible/gone\.bmp'\)",
        ),
        ("Visible/\x07.bmp 0", r"train_visible_1\.txt: unprintable names: 1 \(line 2 "),
    ],
)
def test_regdb_a_wrong_line_is_refused_with_its_number(tmp_path, line, says):
    tree.write_regdb(tmp_path)
    (tmp_path / "idx" / "train_visible_1.txt").write_text(f"Visible/train0/visible_0.bmp 0\n{line}\n")
    with pytest.raises(InputError, match=says):
        read_regdb(tmp_path, trial=1)


LABELS = "labels of another folder, or a folder's second label: "
ELSEWHERE = "pictures that do not lie in "


@pytest.mark.parametrize(
    ("name", "listing", "other", "place"),
    [
        ("regdb", "test_thermal_1.txt", "test_visible_1.txt", "Thermal/{identity}/*"),
        ("llcm", "train_nir.txt", "train_vis.txt", "nir/{identity}/*_c{camera}_*"),
    ],
)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows, _: [(path, 1 - label) for path, label in rows], f"{LABELS}4 (line 1 '"),
        (lambda rows, _: [(path, 0) for path, _ in rows], f"{LABELS}2 (line 3 '"),
        (lambda rows, _: [*rows[:3], (rows[3][0], 7)], f"{LABELS}1 (line 4 '"),
        (lambda _, others: others, f"{ELSEWHERE}PLACE: 4 (line 1 '"),
        (lambda rows, _: [*rows, ("odd.bmp", 0)], f"{ELSEWHERE}PLACE: 1 (line 5 'odd.bmp')"),
        (lambda rows, _: [*rows, rows[1]], "pictures listed again: 1 (line 5 '"),
        (lambda rows, _: rows[:2], "people on only one of them: 1 ("),
    ],
)
def test_a_list_that_pairs_people_otherwise_than_the_folders_is_refused(
    tmp_path, monkeypatch, name, listing, other, place, change, says
):
    monkeypatch.setattr(tree, "LLCM_TRAIN", {n: {"vis": {1: 2}, "nir": {2: 2}} for n in (0, 1)})
    getattr(tree, f"write_{name}")(tmp_path)
    tree.write_picture(tmp_path / "odd.bmp")
    lists = [tmp_path / "idx" / one for one in (listing, other)]
    rows = ([(path, int(n)) for path, n in map(str.split, one.read_text().splitlines())] for one in lists)
    lists[0].write_text("".join(f"{path} {label}\n" for path, label in change(*rows)))
    with pytest.raises(InputError, match=rf"{listing}: .*; take (it|them) from the data set as it is dist") as refused:
        read_data(DataConfig(name=name, root=tmp_path))
    assert says.replace("PLACE", place) in str(refused.value)


def test_regdbs_people_are_trained_or_tested_on(tmp_path):
    tree.write_regdb(tmp_path)
    for modality in ("visible", "thermal"):
        train, test = (tmp_path / "idx" / f"{split}_{modality}_1.txt" for split in ("train", "test"))
        test.write_text("\n".join(train.read_text().splitlines()[-2:]))  # as in another split's lists
    with pytest.raises(InputError, match=r"idx/\*_1\.txt: people listed both for .*: 1 \(train2\); take them"):
        read_regdb(tmp_path, trial=1)


# LLCM


def test_llcms_training_pictures_are_those_of_the_lists_and_test_pictures_those_of_the_folders(llcm):
    assert found(llcm.train) == of_llcm(tree.LLCM_TRAIN)
    assert found(llcm.test) == of_llcm(tree.LLCM_TEST)
    assert (llcm.name, llcm.protocol) == ("llcm", "llcm")
    assert all(path.is_file() for path in llcm.pictures)


def test_llcms_infrared_pictures_of_camera_3_are_not_looked_for(tmp_path):
    tree.write_llcm(tmp_path)
    tree.write_picture(tmp_path / "test_nir" / "cam3" / "0003" / "0003_c03_s1_f1_nir.jpg")
    assert found(read_llcm(tmp_path).test) == of_llcm(tree.LLCM_TEST)


FIRST = "vis/0001/0001_c01_s101_f0_vis.jpg 0\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("vis", None, r"vis: no such folder; data\.root must hold vis, nir, test_vis"),
        ("idx/train_nir.txt", None, r"train_nir\.txt: no such list"),
        ("idx/train_vis.txt", FIRST + "vis/0001/0001_c01_s1_f1_vis.jpg", r"not 'path label'.*1 \(line 2 "),
        (
            "idx/train_vis.txt",
            FIRST + "vis/0001/photo.jpg 0",
            r"do not lie in vis/.*1 \(line 2 'vis/0001/photo\.jpg'\)",
        ),
        ("idx/test_id.txt", "3,\nthree,351", r"test_id\.txt: fields that are not identities: 1 \('three'\)"),
        ("idx/test_id.txt", "\n", r"test_id\.txt: lists no identity"),
        ("idx/test_id.txt", "3,4,5", r"identities without a picture under any camera: 2 \(0004, 0005\)"),
    ],
)
def test_what_is_wrong_with_llcms_tree_is_said(tmp_path, name, content, says):
    path = tree.write_llcm(tmp_path) / name
    tree.write_picture(tmp_path / "vis/0001/photo.jpg")
    if content is None:
        path.rename(tmp_path / "elsewhere")
    else:
        path.write_text(content)
    with pytest.raises(InputError, match=says) as refused:
        read_llcm(tmp_path)
    assert "\n" not in str(refused.value)


# folder


@pytest.mark.parametrize(("fraction", "tested"), [(0.01, 1), (0.5, 2), (0.6, 3), (0.99, 3)])
def test_folder_tests_on_the_last_identities_and_leaves_one_on_either_side(tmp_path, fraction, tested):
    data = read_folder(tree.write_folder(tmp_path), fraction)
    assert {p.parent.name for p in data.test.paths} == set(["anna", "ben", "cleo", "dora"][-tested:])
    assert not set(data.train.identities) & set(data.test.identities)
    for path, infrared in zip(data.train.paths, data.train.infrared, strict=True):
        assert path.parts[-3] == ("infrared" if infrared else "visible")


def test_a_share_of_whole_identities_is_not_rounded_up(tmp_path):
    people = tuple(f"{i:02d}" for i in range(25))
    data = read_folder(tree.write_folder(tmp_path, people, pictures=1), 0.28)
    assert data.test.num_identities == 7  # 25 x 0.28 is 7.000000000000001


def test_folder_leaves_pictures_that_no_template_takes_with_a_note(tmp_path):
    tree.write_folder(tmp_path)
    places = ("infrared/dora/b/c/a.jpg", "notes.jpg", "visible/anna/second day/a.jpg", "visible/nobody.jpg")
    for place in places:
        tree.write_picture(tmp_path / place)
    data = read_folder(tmp_path, 0.5)
    assert len(data.pictures) == 16
    line = f"pictures that are not used: 4 ({', '.join(places)}); move them to a person's folder, or away, or give a "
    line += "data.layout"
    assert passed_over(data) == line
    assert line in validate_for_training(data, config_of(2))[0]
    data = read_folder(tmp_path, 0.5, "{modality}/{identity}/**")
    assert len(data.pictures) == 18
    assert {data.test.name(i) for i in range(len(data.test))} == {"cleo", "dora"}


def test_folder_takes_one_person_in_two_spellings_of_unicode(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD"))
    tree.write_folder(tmp_path / "one", ("anna", "Zof", nfc))
    tree.write_folder(tmp_path / "two", ("anna", "Zof", nfc))
    (tmp_path / "two/infrared" / nfc).rename(tmp_path / "two/infrared" / nfd)
    tree.write_picture(tmp_path / "two/visible" / nfd / "more.jpg")
    one, two = read_folder(tmp_path / "one", 0.3), read_folder(tmp_path / "two", 0.3)
    assert list(one.train.names.values()) == ["Zof", nfc]
    assert list(two.train.names.values()) == ["Zof", nfd]  # as first read
    assert list(two.test.names.values()) == ["anna"]
    assert len(two.train) == len(one.train) + 1
    (tmp_path / "two/visible" / nfd / "more.jpg").unlink()
    assert read_folder(tmp_path / "two", 0.3).checksum == one.checksum


def test_folder_takes_other_trees_by_their_layout(tmp_path):
    for person in range(4):
        for modality in ("rgb", "ir"):
            for camera in (1, 2):
                tree.write_picture(tmp_path / f"{person:04d}/{modality}/D{camera}/0.jpg")
    data = read_data(DataConfig(name="folder", root=tmp_path, layout="{identity}/{modality}/{camera}/*"))
    assert list(data.train.names.values()) == ["0000", "0001"]
    assert found(data.test) == {(i, c, c == 2): 2 for i in (2, 3) for c in (1, 2)}
    assert passed_over(data) is None


@pytest.mark.parametrize("name", ["sysu_mm01", "regdb", "llcm"])
def test_folder_names_the_set_whose_tree_it_is(tmp_path, name):
    getattr(tree, f"write_{name}")(tmp_path)
    with pytest.raises(InputError, match=rf"visible: no such folder; .*, and for this tree data\.name={name}$"):
        read_data(DataConfig(name="folder", root=tmp_path))
    with pytest.raises(InputError, match=r"data\.layout=regdb: is only for data\.name=folder; leave it out"):
        read_data(DataConfig(name=name, root=tmp_path, layout="regdb"))


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("sysu_mm01", ("cam1/0001/more/a.jpg", "cam3/a.jpg", "cam5/1/a.jpg")),
        ("regdb", ("Thermal/a.bmp", "Visible/test0/more/a.bmp", "Visible/train0/a.bmp")),
        ("llcm", ("nir/a.jpg", "test_nir/cam3/0003/a.jpg", "test_vis/cam1/a.jpg", "vis/0001/more/a.jpg")),
    ],
)
def test_pictures_that_a_published_sets_reader_passes_over_are_named(tmp_path, name, places):
    getattr(tree, f"write_{name}")(tmp_path)
    others = {"sysu_mm01": "cam1/0533/a.jpg", "regdb": "Visible/999/a.jpg", "llcm": "vis/0777/0777_c01_s1_f1_vis.jpg"}
    tree.write_picture(tmp_path / others[name])
    data = read_data(DataConfig(name=name, root=tmp_path))
    assert passed_over(data) is None  # somebody on no list
    for place in places:
        tree.write_picture(tmp_path / place)
    said = f"pictures that are not used: {len(places)} ({', '.join(places)}); move them to a person's folder, or away"
    assert passed_over(data) == said


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ((), "holds no picture; data.root must hold visible/ID"),
        (("visible/anna/a.jpg", "visible/ben/a.jpg"), "holds no infrared pictures of people; data.root must hold"),
        (("train/a.jpg", "test/a.jpg"), "; its folders are test, train; say what its names are with data.layout"),
        (
            ("visible/train/a.jpg", "infrared/test/a.jpg"),
            "; its folders are infrared, visible, below them test, train;",
        ),
    ],
)
def test_folder_says_what_to_write_where_nobody_is_known(tmp_path, places, says):
    for place in places:
        tree.write_picture(tmp_path / place)
    with pytest.raises(InputError) as refused:
        read_folder(tmp_path, 0.5)
    assert says in str(refused.value)


# what all readers return


def test_the_checksum_changes_with_a_file_or_its_name_and_not_with_the_root(sysu, tmp_path):
    tree.write_sysu_mm01(tmp_path)
    assert read_sysu_mm01(tmp_path).checksum == sysu.checksum
    path = list_pictures(tmp_path / "cam1" / "0001", [])[0]
    renamed = path.rename(path.with_stem("renamed"))
    assert read_sysu_mm01(tmp_path).checksum != sysu.checksum
    content = renamed.rename(path).read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed = read_sysu_mm01(tmp_path)
    assert changed.checksum != sysu.checksum
    assert (changed.has_checksum(changed.checksum), changed.has_checksum(sysu.checksum)) == (True, False)


def test_a_checksum_of_an_earlier_version_is_of_names_and_sizes_and_it_is_said(sysu, caplog):
    lines = sorted((path.relative_to(sysu.root), path.stat().st_size) for path in sysu.pictures)
    earlier = hashlib.sha256("".join(f"{path.as_posix()}\t{size}\n" for path, size in lines).encode()).hexdigest()
    assert sysu.has_checksum(sysu.checksum)
    assert not caplog.text
    assert (sysu.has_checksum(earlier), sysu.has_checksum("0" * 64)) == (True, False)
    assert caplog.text.count("a run of an earlier version, which knows its pictures by names and sizes alone") == 1


def test_a_data_set_without_a_root_is_refused():
    with pytest.raises(InputError, match=r"data\.root is not set: give --data-root"):
        read_data(DataConfig(name="sysu_mm01"))


@pytest.mark.parametrize("name", ["sysu_mm01", "regdb", "llcm"])
@pytest.mark.parametrize(("encoding", "ending"), [("utf-8-sig", "\r\n"), ("utf-16", "\r\n"), ("utf-8", "\r")])
def test_lists_may_come_from_any_system(name, encoding, ending, tmp_path):
    getattr(tree, f"write_{name}")(tmp_path)
    expected = read_data(DataConfig(name=name, root=tmp_path))
    for listing in tmp_path.glob("*/*.txt"):
        text = listing.read_text().replace("\n", ending).replace("/", "\\")
        listing.write_bytes(text.encode(encoding))
    data = read_data(DataConfig(name=name, root=tmp_path))
    for split in ("train", "test"):
        assert getattr(data, split).paths == getattr(expected, split).paths
        assert np.array_equal(getattr(data, split).identities, getattr(expected, split).identities)


@pytest.mark.parametrize("name", ["sysu_mm01", "regdb", "llcm", "folder"])
def test_what_systems_make_is_left_behind_and_said_once(name, tmp_path, caplog):
    getattr(tree, f"write_{name}")(tmp_path)
    expected = read_data(DataConfig(name=name, root=tmp_path))
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        tree.write_picture(folder / ".hidden" / "a.jpg")
        tree.write_picture(folder / "@eaDir" / "a.jpg")
        (folder / "._a.jpg").write_bytes(b"\0\5\26\7Mac OS X")
    data = read_data(DataConfig(name=name, root=tmp_path))
    assert passed_over(data) is None
    assert len([line for line in caplog.messages if f"{tmp_path}: left out, as systems make files" in line]) == 1
    assert (data.train.paths, data.test.paths) == (expected.train.paths, expected.test.paths)
    assert sorted(tmp_path / path for path in find_pictures(tmp_path)) == sorted(expected.pictures)


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


def test_identities_with_fewer_than_k_pictures_are_counted_and_named_in_a_warning(sysu, llcm):
    assert check_training_identities(images_of({7: (2, 2), 9: (3, 2)}), 2, Path("root")) is None
    warning = check_training_identities(images_of({7: (1, 4), 8: (4, 4), 9: (4, 3)}), 4, Path("root"))
    assert "fewer than 4" in warning
    assert "2 (7 has 1 visible, 9 has 3 infrared)" in warning
    assert "4 has 1 visible" in validate_for_training(sysu, config_of(2))[0][0]
    assert "fewer than 4" in validate_for_training(llcm, config_of(4))[0][0]


def config_of(num_instances):
    return load_config(CONFIG_ROOT / "pmt/sysu.yaml", [f"train.num_instances={num_instances}"])


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (images_of({7: (2, 2), 9: (0, 2)}), r"root: training identities without visible pictures: 1 \(9\)"),
        (images_of({7: (2, 2), 9: (2, 0)}), r"root: training identities without infrared pictures: 1 \(9\)"),
        (image_set([]), "root: the training set holds no pictures"),
    ],
)
def test_training_sets_without_a_modality_or_pictures_are_refused(images, says):
    with pytest.raises(InputError, match=says):
        check_training_identities(images, 2, Path("root"))


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
