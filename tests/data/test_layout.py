"""Who is on a picture: shapes of trees that are found out, layouts that are stated, and what stays unknown."""

import os
import unicodedata
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import DataConfig
from ms_vireid.data.layout import find_layout, find_pictures, read_layout
from ms_vireid.data.validation import walk
from ms_vireid.search.sources import read_source

MODALITIES = ("visible", "infrared")
SYSU = ("exp/train_id.txt", *(f"cam{camera}/0001/0.jpg" for camera in range(1, 7)))


def write(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def read(root: Path, modality: str = "auto", layout: str = "auto") -> dict[str, tuple[str, str, int]]:
    """Modality, identity and camera of each picture."""
    pictures = find_pictures(root)
    images, people = read_layout(root, pictures, modality, find_layout(root, pictures, layout))
    rows = zip(pictures, images.infrared, people, images.cameras, strict=True)
    return {str(path): (MODALITIES[int(infrared)], str(person), int(camera)) for path, infrared, person, camera in rows}


def both(*paths: str) -> tuple[str, ...]:
    return tuple(f"{modality}/{path}" for modality in MODALITIES for path in paths)


# A tree, one of its pictures, and what this shows.
READ = {
    "modality/person": (both("anna/0.jpg", "ben/0.jpg"), "visible/anna/0.jpg", ("visible", "anna", -1)),
    "in other words": (("RGB/7/0.jpg", "Thermal/7/0.jpg"), "Thermal/7/0.jpg", ("infrared", "7", -1)),
    "person/modality": (("1/rgb/0.jpg", "2/ir/0.jpg"), "2/ir/0.jpg", ("infrared", "2", -1)),
    "person/modality/camera": (
        tuple(f"{person:04d}/{m}/D{camera}/0.jpg" for person in range(3) for m in ("rgb", "ir") for camera in (1, 2)),
        "0002/ir/D1/0.jpg",
        ("infrared", "0002", 1),
    ),
    "split/person/modality/camera": (
        ("Train/0001/rgb/D1/0.jpg", "Train/0003/ir/D2/0.jpg", "Test/0002/ir/D2/0.jpg"),
        "Test/0002/ir/D2/0.jpg",
        ("infrared", "0002", 2),
    ),
    "modality/split/person": (both("train/1/0.jpg", "test/2/0.jpg"), "infrared/test/2/0.jpg", ("infrared", "2", -1)),
    "split/modality/person": (
        ("train/rgb/1/0.jpg", "train/ir/3/0.jpg", "val/ir/2/0.jpg"),
        "val/ir/2/0.jpg",
        ("infrared", "2", -1),
    ),
    "modality and split in one name": (
        ("rgb_train/1/0.jpg", "ir_test/2/0.jpg"),
        "ir_test/2/0.jpg",
        ("infrared", "2", -1),
    ),
    "modality/camera/person": (both("cam3/1/0.jpg", "cam6/1/0.jpg"), "visible/cam6/1/0.jpg", ("visible", "1", 6)),
    "person/session": (
        both("anna/session1/0.jpg", "anna/session2/0.jpg", "ben/session1/0.jpg"),
        "visible/anna/session2/0.jpg",
        ("visible", "anna", -1),
    ),
    "sites": (("siteA/visible/1/0.jpg", "siteB/visible/1/0.jpg"), "siteB/visible/1/0.jpg", ("visible", "siteB/1", -1)),
    "sites within": (both("lab/1/0.jpg", "hall 2/1/0.jpg"), "visible/hall 2/1/0.jpg", ("visible", "hall 2/1", -1)),
    "places of one person each": (
        ("berlin/visible/1/0.jpg", "paris/visible/1/0.jpg"),
        "paris/visible/1/0.jpg",
        ("visible", "paris", -1),
    ),
    "a second day": (
        both("0/0.jpg", "0/second day/1.jpg", "1/0.jpg", "nobody knows.jpg"),
        "visible/0/second day/1.jpg",
        ("visible", "0", -1),
    ),
    "beside the people": (
        both("0/0.jpg", "0/second day/1.jpg", "1/0.jpg", "nobody knows.jpg"),
        "visible/nobody knows.jpg",
        ("visible", "", -1),
    ),
    "odd names of people": (
        both(*(f"{name}/0.jpg" for name in ("anna", "ben", "cleo", "IR", "train", "cam3"))),
        "visible/IR/0.jpg",
        ("visible", "IR", -1),
    ),
    "a person called as a split": (
        both(*(f"{name}/0.jpg" for name in ("anna", "ben", "IR", "train"))),
        "infrared/train/0.jpg",
        ("infrared", "train", -1),
    ),
    "a person called as a modality, first": (
        tuple(f"{name}/{m}/0.jpg" for name in ("anna", "RGB") for m in MODALITIES),
        "RGB/infrared/0.jpg",
        ("infrared", "RGB", -1),
    ),
    "SYSU-MM01": (SYSU, "cam3/0001/0.jpg", ("infrared", "0001", 3)),
    "LLCM, to train on": (
        ("vis/0003/0003_c06_s2_f4_vis.jpg", "test_vis/cam1/0003/0003_c01_s2_f4_vis.jpg"),
        "vis/0003/0003_c06_s2_f4_vis.jpg",
        ("visible", "0003", 6),
    ),
    "LLCM, to test on": (
        ("vis/0003/0003_c06_s2_f4_vis.jpg", "test_vis/cam1/0003/0003_c01_s2_f4_vis.jpg"),
        "test_vis/cam1/0003/0003_c01_s2_f4_vis.jpg",
        ("visible", "test/0003", 1),
    ),
    "Market-1501's names": (
        both("bounding_box_train/0002_c1s1_000451_03.jpg", "query/0007_c3s2_000451_03.jpg"),
        "visible/query/0007_c3s2_000451_03.jpg",
        ("visible", "0007", 3),
    ),
    "Market-1501's junk": (
        both("bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_test/-1_c3s2_000451_03.jpg"),
        "visible/bounding_box_test/-1_c3s2_000451_03.jpg",
        ("visible", "", 3),
    ),
    "names of files against a folder": (
        both("entrance hall/0002_c1s1_000451_03.jpg", "entrance hall/0003_c1s1_000451_03.jpg"),
        "visible/entrance hall/0003_c1s1_000451_03.jpg",
        ("visible", "0003", 1),
    ),
    "a modality said twice": (
        ("visible/RGB/anna/0.jpg", "infrared/IR/anna/0.jpg"),
        "visible/RGB/anna/0.jpg",
        ("visible", "anna", -1),
    ),
}


@pytest.mark.parametrize(("paths", "one", "row"), READ.values(), ids=READ)
def test_a_tree_is_read_as_a_whole(tmp_path, paths, one, row):
    assert read(write(tmp_path / "in", *paths))[one] == row


# A tree, part of what is said, and of the layout that is proposed.
UNCLEAR = {
    "splits alone": (both("train/1.jpg", "test/2.jpg"), "no folder and no picture's name says who", "{identity}_*"),
    "what all pictures lie in": (both("images/1.jpg"), "no folder and no picture's name says who", "{identity}_*"),
    "cameras alone": (both("D1/1.jpg", "D2/1.jpg"), "no folder and no", "'{identity}/{modality}/{camera}/*'"),
    "splits and another folder": (both("train/1.jpg", "test/1.jpg", "more/1.jpg"), "some folders are", "{split}"),
    "people of the same numbers in two splits": (
        both("train/1/0.jpg", "test/1/0.jpg"),
        "people of one name are in two parts of the set",
        "'{modality}/{split}/{identity}/**' or '{modality}/{site}/{identity}/**'",
    ),
    "cities, or people": (
        tuple(f"{place}/{m}/{i}/0.jpg" for place in ("berlin", "paris") for m in MODALITIES for i in (1, 2)),
        "two levels of folders may name the people",
        "'{identity}/{modality}/**' or '{site}/{modality}/{identity}/**'",
    ),
    "two levels": (both("a/x/0.jpg", "a/y/0.jpg", "b/x/0.jpg"), "two levels of folders", "{site}/{identity}"),
}


@pytest.mark.parametrize(("paths", "problem", "remedy"), UNCLEAR.values(), ids=UNCLEAR)
def test_what_can_be_read_in_two_ways_is_unknown_and_said(tmp_path, caplog, paths, problem, remedy):
    rows = read(write(tmp_path, *paths))
    assert {identity for _, identity, _ in rows.values()} == {""}
    (said,) = [record.getMessage() for record in caplog.records]
    assert problem in said
    assert "; say it with --layout, such as " in said
    assert remedy in said


def test_another_reading_than_the_documented_one_is_said_with_an_example(tmp_path, caplog):
    read(write(tmp_path, "1/ir/D2/0.jpg", "2/rgb/D1/0.jpg"))
    (said,) = [record.getMessage() for record in caplog.records]
    example = "read as {identity}/{modality}/{camera}/*, as in 1/ir/D2/0.jpg (person 1, infrared, camera 2)"
    assert said == f"note: {tmp_path}: {example}; --layout states another"
    caplog.clear()
    read(write(tmp_path / "people", *both("anna/0.jpg", "ben/0.jpg")))
    assert caplog.records == []


NO_MODALITY = {
    "a part of SYSU-MM01's cameras": tuple(f"cam{camera}/0001/0.jpg" for camera in (1, 3, 6)),
    "all of them without its lists": SYSU[1:],
    "two levels that disagree": tuple(f"{m}/{name}/0.jpg" for m in MODALITIES for name in ("IR", "RGB")),
    "a stray": (*both("anna/0.jpg"), "notes/0.jpg"),
}


@pytest.mark.parametrize("paths", NO_MODALITY.values(), ids=NO_MODALITY)
def test_a_modality_that_is_not_clear_is_asked_for(tmp_path, paths):
    root = write(tmp_path, *paths)
    with pytest.raises(InputError, match=r"say no modality: .*; give --modality visible or infrared, or a --layout"):
        read(root)
    assert {modality for modality, *_ in read(root, "visible").values()} == {"visible"}


def test_cameras_of_ones_own_have_the_people_below_them(tmp_path):
    rows = read(write(tmp_path, "cam3/0001/0.jpg", "cam6/0002/0.jpg"), "visible")
    assert list(rows.values()) == [("visible", "0001", 3), ("visible", "0002", 6)]


@pytest.mark.parametrize(
    ("paths", "below", "row"),
    [
        (both("anna/0.jpg", "IR/0.jpg"), "visible/IR", ("visible", "IR", -1)),
        (both("anna/0.jpg", "IR/0.jpg", "train/0.jpg", "ben/0.jpg"), "visible/train", ("visible", "train", -1)),
        (both("anna/0.jpg", "IR/0.jpg"), "infrared", ("infrared", "IR", -1)),
        (both("train/1.jpg", "test/1.jpg"), "infrared/test", ("infrared", "", -1)),
        (SYSU, "cam3", ("infrared", "0001", 3)),
        (SYSU, "cam6/0001", ("infrared", "0001", 6)),
        (("test_nir/cam1/0003/0.jpg", "nir/0001/0.jpg"), "test_nir/cam1/0003", ("infrared", "0003", 1)),
        (both("cam3/0001/0.jpg"), "visible/cam3", ("visible", "0001", 3)),
        (("1/ir/D1/0.jpg", "2/rgb/D1/0.jpg"), "1/ir", ("infrared", "", 1)),
    ],
)
def test_a_folder_of_a_tree_is_read_by_those_that_lead_to_it(tmp_path, paths, below, row):
    write(tmp_path / "in", *paths)
    assert row in read(tmp_path / "in" / below).values()


STATED = {
    "{identity}/{modality}/{camera}/*": ("1/ir/D2/0.jpg", ("infrared", "1", 2)),
    "PERSON/MODALITY/CAMERA": ("1/ir/D2/0.jpg", ("infrared", "1", 2)),
    "person/modality": ("1/ir/deep/er/0.jpg", ("infrared", "1", -1)),
    "{site}/{modality}/{identity}/*": ("paris/rgb/1/0.jpg", ("visible", "paris/1", -1)),
    "{modality}/{split}/{identity}/*": ("rgb/train/1/0.jpg", ("visible", "1", -1)),
    "{modality}/{identity}_c{camera}s*": ("rgb/anna_c12s1_7.jpg", ("visible", "anna", 12)),
    "**/{modality}/{identity}.jpg": ("a/b/rgb/anna.jpg", ("visible", "anna", -1)),
    "{modality}/{identity}": ("rgb/anna.png", ("visible", "anna", -1)),
    "{identity}_{modality}_*": ("anna_b_rgb_0.jpg", ("visible", "anna_b", -1)),
    "a|{modality}/**|b/{identity}": ("rgb/anna.jpg", ("visible", "", -1)),
    "SYSU-MM01": ("cam3/0001/0.jpg", ("infrared", "0001", 3)),
    "market1501": ("x/thermal/0002_c1s1_000451_03.jpg", ("infrared", "0002", 1)),
    "dukemtmc": ("rgb/0002_c1_f0046182.jpg", ("visible", "0002", 1)),
    "msmt17": ("rgb/train/0002_000_01_0303morning_0015_0.jpg", ("visible", "0002", 1)),
    "mars": ("rgb/0002C1T0001F001.jpg", ("visible", "0002", 1)),
}


@pytest.mark.parametrize(("layout", "one", "row"), [(layout, *rest) for layout, rest in STATED.items()], ids=STATED)
def test_a_layout_can_be_stated(tmp_path, layout, one, row):
    assert DataConfig(name="folder", layout=layout).layout == layout
    assert read(write(tmp_path, one), layout=layout) == {one: row}


def test_a_stated_layout_fits_a_folder_within_the_tree_too(tmp_path):
    write(tmp_path, "1/ir/D1/0.jpg", "2/rgb/D1/0.jpg")
    for below in ("", "1", "1/ir", "1/ir/D1"):
        assert ("infrared", "1", 1) in read(tmp_path / below, layout="PERSON/MODALITY/CAMERA").values()


def test_a_stated_layout_may_leave_the_modality_to_the_folders(tmp_path):
    write(tmp_path, *both("walk/anna_1.jpg"))
    rows = read(tmp_path / "infrared", layout="*/{identity}_*")
    assert rows == {"walk/anna_1.jpg": ("infrared", "anna", -1)}


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("", "has an empty part"),
        ("--", "says none of {identity}, {modality} and {camera}; give auto, words as PERSON/MODALITY/CAMERA"),
        ("person/nobody", "says none of"),
        ("{name}/*", "'{name}' is none of {identity}, {modality}"),
        ("{identity", "'{' is none of"),
        ("{identity!r}/*", "'{identity!r}' is none of"),
        ("{modality}/{modality}", "has {modality} twice"),
        ("{identity}{camera}/*", "put something between '{identity}' and '{camera}'"),
        ("{identity}/***", "put something between '*' and '*'"),
        ("/{identity}/*", "has an empty part"),
        ("{identity}/../*", "has an empty part, or '.' or '..'"),
        ("**/{identity}/**/x/**/y", "has more than two '**'"),
        ("{identity}_*_*_*", "has more than 3 wildcards"),
        ("|".join(9 * ["{identity}"]), "has 9 templates, at most 8"),
        (301 * "a", "is longer than 300 characters"),
        ("{identity}\n", "cannot be printed"),
    ],
)
def test_what_is_no_layout_is_refused(tmp_path, layout, says):
    with pytest.raises(InputError) as refused:
        find_layout(write(tmp_path, "0.jpg"), [Path("0.jpg")], layout)
    assert says in str(refused.value)
    with pytest.raises(ValueError, match=r"layout"):
        DataConfig(name="folder", layout=layout)


def test_queries_are_read_as_the_tree_of_their_gallery(tmp_path):
    vcm = [f"{i}/{m}/D{c}/0.jpg" for i in (1, 2) for m in ("rgb", "ir") for c in (1, 2)]
    root = write(tmp_path / "in", *vcm)
    gallery = read_source([root], "auto", "--gallery")
    for query in ([root / "1/ir"], [root / "1/ir/D1/0.jpg"], [root / "1/ir/D1/0.jpg", root / "1/rgb/D2/0.jpg"]):
        assert set(read_source(query, "auto", "--query", gallery=gallery.layout).identities) == {"1"}
        assert set(read_source(query, "auto", "--query").identities) == {""}
    other = write(tmp_path / "others", *both("1/0.jpg"))
    assert set(read_source([other], "auto", "--query", gallery=gallery.layout).identities) == {"1"}


# links


def test_every_name_of_a_link_is_a_picture_and_circles_are_seen(tmp_path):
    root = write(tmp_path / "in", "0001/a.png")
    (root / "0001/up").symlink_to("..")
    (root / "0001/self").symlink_to(".")
    (root / "0002").symlink_to("0001")
    (root / "0001/b.png").symlink_to("a.png")
    write(tmp_path / "elsewhere", "c.png")
    (tmp_path / "elsewhere/back").symlink_to(root)
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "round.png").symlink_to("round.png")
    expected = ["0001/a.png", "0001/b.png", "0002/a.png", "0002/b.png", "gone.png", "more/c.png", "round.png"]
    assert [str(path) for path in find_pictures(root)] == expected


def test_a_maze_of_links_is_refused(tmp_path, monkeypatch):
    for name in range(8):
        (tmp_path / str(name)).mkdir()
        for other in range(8):
            (tmp_path / str(name) / str(other)).symlink_to(tmp_path / str(other))
    monkeypatch.setattr("ms_vireid.data.validation._MOST_LINKED", 1000)
    with pytest.raises(InputError, match=r"links lead to more than 1,000 folders; remove links"):
        walk(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, caplog):
    write(tmp_path, "visible/anna/0.jpg", "lost/0.jpg")
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(path) == "lost":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert walk(tmp_path).pictures == [Path("visible/anna/0.jpg")]
    assert "folders that cannot be read are left: 1 (lost)" in caplog.text


# spellings in Unicode


@pytest.fixture
def spelled():
    return [unicodedata.normalize(form, "Zoé Åström") for form in ("NFC", "NFD")]


def test_a_name_in_two_spellings_is_one_person_shown_as_first_read(tmp_path, spelled):
    root = write(tmp_path, f"visible/{spelled[0]}/0.jpg", f"infrared/{spelled[1]}/0.jpg", *both("anna/0.jpg"))
    assert {person for _, person, _ in read(root).values()} == {"anna", spelled[1]}


def test_a_list_names_pictures_in_any_spelling(tmp_path, spelled):
    root = write(tmp_path / "in", f"visible/{spelled[1]}/{spelled[1]}.jpg")
    listing = tmp_path / "list.txt"
    for line in (f"visible/{spelled[0]}/{spelled[0]}.jpg", f"visible\\{spelled[0]}\\{spelled[1]}.jpg"):
        listing.write_text(line, encoding="utf-8")
        assert find_pictures(root, listing) == [Path(f"visible/{spelled[1]}/{spelled[1]}.jpg")]
    listing.write_text(f"visible/{spelled[0]}/é.jpg", encoding="utf-8")
    with pytest.raises(InputError, match=r"lines that name no file under .*: 1 \(line 1 'visible/"):
        find_pictures(root, listing)
