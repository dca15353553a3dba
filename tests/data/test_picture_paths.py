"""Who is on a picture: documented trees, layouts that are stated, and what stays unknown."""

import os
import re
import unicodedata
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import DataConfig
from ms_vireid.data.folder_layout import find_layout
from ms_vireid.data.picture_paths import find_pictures, read_layout
from ms_vireid.data.validation import walk
from ms_vireid.search.sources import read_source

MODALITIES = ("visible", "infrared")
SYSU = ("exp/train_id.txt", *(f"cam{camera}/0001/0.jpg" for camera in range(1, 7)))
LLCM = (
    "idx/test_id.txt",
    *(f"{m}/0003/0003_c06_s2_f4_{m}.jpg" for m in ("vis", "nir")),
    *(f"test_{m}/cam1/0003/0003_c01_s2_f4_{m}.jpg" for m in ("vis", "nir")),
)
REGDB = ("idx/train_visible_1.txt", "Visible/7/0.bmp", "Thermal/7/0.bmp")


def write(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def read(root: Path, modality: str = "auto", layout: str = "auto") -> dict[str, tuple[str, str, int]]:
    """Modality, identity and camera of each picture."""
    pictures = find_pictures(root)
    images, people = read_layout(root, pictures, find_layout(root, pictures, layout, modality=modality), modality)
    rows = zip(pictures, images.infrared, people, images.cameras, strict=True)
    return {str(path): (MODALITIES[int(infrared)], str(person), int(camera)) for path, infrared, person, camera in rows}


def both(*paths: str) -> tuple[str, ...]:
    return tuple(f"{modality}/{path}" for modality in MODALITIES for path in paths)


# A tree, one of its pictures, and what this shows.
READ = {
    "modality/person": (both("anna/0.jpg", "ben/0.jpg"), "visible/anna/0.jpg", ("visible", "anna", -1)),
    "in other words": (("RGB/1/0.jpg", "swir/7/0.jpg"), "swir/7/0.jpg", ("infrared", "7", -1)),
    "one modality": (("rgb/1/0.jpg",), "rgb/1/0.jpg", ("visible", "1", -1)),
    "beside empty folders": ((*both("1/0.jpg"), "notes/a.txt"), "visible/1/0.jpg", ("visible", "1", -1)),
    "modality/camera/person": (both("cam3/1/0.jpg", "cam6/2/0.jpg"), "visible/cam6/2/0.jpg", ("visible", "2", 6)),
    "SYSU-MM01": (SYSU, "cam3/0001/0.jpg", ("infrared", "0001", 3)),
    "RegDB": (REGDB, "Thermal/7/0.bmp", ("infrared", "7", -1)),
    "LLCM, to train on": (LLCM, LLCM[1], ("visible", "0003", 6)),
    "LLCM, to test on": (LLCM, LLCM[4], ("infrared", "test/0003", 1)),
}


@pytest.mark.parametrize(("paths", "one", "row"), READ.values(), ids=READ)
def test_documented_trees_are_read_without_a_note(tmp_path, caplog, paths, one, row):
    assert read(write(tmp_path / "in", *paths))[one] == row
    assert [line for line in caplog.messages if "files skipped" not in line] == []


# Trees, and how their folders are shown.
UNKNOWN = {
    "person/modality/camera": (
        tuple(f"{person:04d}/{m}/D{camera}/0.jpg" for person in range(5) for m in ("rgb", "ir") for camera in (1, 2)),
        "0000, 0001, 0002 ..., below them ir, rgb, below them D1, D2",
    ),
    "modality/split/person": (both("train/1/0.jpg"), "infrared, visible, below them train, below them 1"),
    "modality and split in one name": (("rgb_train/1/0.jpg", "ir_test/2/0.jpg"), "ir_test, rgb_train, below them 1, 2"),
    "modality/place/person": (both("lab/1/0.jpg"), "infrared, visible, below them lab, below them 1"),
    "place/modality/person": (("lab/rgb/1/0.jpg", "hall/rgb/1/0.jpg"), "hall, lab, below them rgb, below them 1"),
    "a modality said twice": (
        ("visible/RGB/anna/0.jpg", "infrared/IR/anna/0.jpg"),
        "infrared, visible, below them IR, RGB, below them anna",
    ),
    "a part of SYSU-MM01": (SYSU[1:4], "cam1, cam2, cam3, below them 0001"),
    "SYSU-MM01 without its lists": (SYSU[1:], "cam1, cam2, cam3 ..., below them 0001"),
    "a modality and other folders": (("visible/anna/0.jpg", "more/0.jpg"), "more, visible, below them anna"),
    "modalities alone": (both("0.jpg"), "infrared, visible"),
    "nothing but pictures": (("b.jpg", "a.jpg"), None),
    **{
        f"people and {name}": (both("anna/0.jpg", f"{name}/0.jpg"), f"infrared, visible, below them {name}, anna")
        for name in (
            "RGB",
            "Train",
            "Cam3",
            "D1",
            "Query",
            "Day 2",
            "Bounding_box_test",
            "Images",
            "Multi_shot",
            "Mask_train_v2",
        )
    },
    "cameras alone": (both("D1/1.jpg", "D2/1.jpg"), "infrared, visible, below them D1, D2"),
    "cameras and parts": (both("cam1/train/1.jpg"), "infrared, visible, below them cam1, below them train"),
}
REMEDY = "; say what its names are with --layout, of {modality}, {identity}, {camera} and * (docs/data.md)"


@pytest.mark.parametrize(("paths", "levels"), UNKNOWN.values(), ids=UNKNOWN)
def test_any_other_tree_is_refused_with_its_first_levels(tmp_path, caplog, paths, levels):
    root = write(tmp_path, *paths)
    known = f"{root}: fits no tree in docs/data.md; "
    shown = f"its folders are {levels}" if levels else "it has no folder; a picture is a.jpg"
    with pytest.raises(InputError) as refused:
        read(root)
    assert str(refused.value) == f"{known}{shown}{REMEDY}, or --modality alone: people unknown"
    assert set(read(root, "infrared").values()) == {("infrared", "", -1)}
    noted = [record.getMessage() for record in caplog.records]
    assert [line.endswith(REMEDY) and line.startswith("note: all people are unknown: ") for line in noted] == (
        [True] if levels else []
    )


def test_pictures_that_the_tree_does_not_take_are_refused(tmp_path):
    root = write(tmp_path, *both("anna/0.jpg"), "visible/0.jpg", "visible/anna/day 1/0.jpg", "notes/0.jpg")
    said = (
        f"{root}: pictures that layout {{modality}}/{{identity}}/* does not fit: 3 (notes/0.jpg, visible/0.jpg, "
        "visible/anna/day 1/0.jpg); move them away, or give a --layout that fits them too: | separates templates"
    )
    for modality in ("auto", "visible"):
        with pytest.raises(InputError) as refused:
            read(root, modality)
        assert str(refused.value) == said
    rows = read(root, layout="{modality}/{identity}/**|{modality}/*|notes/{identity}", modality="visible")
    assert [identity for _, identity, _ in rows.values()] == ["anna", "0", "", "anna", "anna"]


@pytest.mark.parametrize(
    ("paths", "below", "row"),
    [
        (both("anna/0.jpg", "ben/0.jpg"), "visible/ben", ("visible", "ben", -1)),
        (SYSU, "cam6/0001", ("infrared", "0001", 6)),
        (LLCM, "test_nir/cam1/0003", ("infrared", "test/0003", 1)),
        (both("cam3/0001/0.jpg"), "visible/cam3/0001", ("visible", "0001", 3)),
    ],
)
def test_a_folder_of_a_tree_is_read_by_those_that_lead_to_it(tmp_path, paths, below, row):
    write(tmp_path / "in", *paths)
    assert row in read(tmp_path / "in" / below).values()


@pytest.mark.parametrize(
    ("paths", "below"),
    [
        (both("anna/0.jpg", "train/0.jpg"), "visible/train"),
        (both("anna/0.jpg", "train/0.jpg"), "visible/anna"),
        (("visible/anna/0.jpg", "more/0.jpg"), "visible"),
        (("visible/rgb/anna/0.jpg", "infrared/ir/anna/0.jpg"), "infrared"),
        (("nir/0003/0003_c01_s1_f1_nir.jpg", "test_nir/cam1/0003/0.jpg"), "test_nir/cam1/0003"),
    ],
)
def test_a_folder_of_an_unknown_tree_is_unknown(tmp_path, paths, below):
    write(tmp_path / "in", *paths)
    with pytest.raises(InputError, match=r"fits no tree in docs/data\.md"):
        read(tmp_path / "in" / below)


STATED = {
    "{identity}/{modality}/{camera}/*": ("1/ir/D2/0.jpg", ("infrared", "1", 2)),
    "{modality}_{split}/{identity}/*": ("rgb_train/1/0.jpg", ("visible", "1", -1)),
    "{site}/{modality}/{identity}/*": ("paris/rgb/1/0.jpg", ("visible", "paris/1", -1)),
    "{modality}/{identity}_c{camera}s*": ("rgb/anna_c12s1_7.jpg", ("visible", "anna", 12)),
    "{modality}/{identity}": ("rgb/anna.png", ("visible", "anna", -1)),
    "{identity}_{modality}_*": ("anna_b_rgb_0.jpg", ("visible", "anna_b", -1)),
    "a|{modality}/**|b/{identity}": ("rgb/anna.jpg", ("visible", "", -1)),
    "SYSU-MM01": ("cam3/0001/0.jpg", ("infrared", "0001", 3)),
    "market1501": ("x/thermal/0002_c1s1_000451_03.jpg", ("infrared", "0002", 1)),
    "dukemtmc": ("rgb/0002_c1_f0046182.jpg", ("visible", "0002", 1)),
    "msmt17": ("rgb/train/0002_000_01_0303morning_0015_0.jpg", ("visible", "0002", 1)),
    "mars": ("rgb/0002C1T0001F001.jpg", ("visible", "0002", 1)),
    "MSMT17:Same": ("ir/train/0002_000_01_0303morning_0015_0.jpg", ("infrared", "0002", 1)),
    "dukemtmc:different": ("rgb/gallery/0002_c1_f0046182.jpg", ("visible", "test/0002", 1)),
}


@pytest.mark.parametrize(("layout", "one", "row"), [(layout, *rest) for layout, rest in STATED.items()], ids=STATED)
def test_a_layout_can_be_stated(tmp_path, layout, one, row):
    assert DataConfig(name="folder", layout=layout).layout == layout
    assert read(write(tmp_path, one), layout=layout) == {one: row}


def test_a_stated_layout_fits_a_folder_within_the_tree_too(tmp_path):
    write(tmp_path, "1/ir/D1/0.jpg", "2/rgb/D1/0.jpg")
    for below in ("", "1", "1/ir", "1/ir/D1"):
        assert ("infrared", "1", 1) in read(tmp_path / below, layout="{identity}/{modality}/{camera}/*").values()


def test_a_stated_layout_that_takes_no_picture_or_not_all_is_refused(tmp_path):
    root = write(tmp_path, "1/ir/D1/0.jpg", "2/ir/front/0.jpg")
    with pytest.raises(InputError) as refused:
        read(root, layout="{modality}/{identity}_*")
    said = "fits no picture; its folders are 1, 2, below them ir, below them D1, front"
    assert str(refused.value) == f"{root}: --layout '{{modality}}/{{identity}}_*' {said}"
    with pytest.raises(InputError, match=r"\{camera\}/\* does not fit: 1 \(2/ir/front/0.jpg\); move them away, or"):
        read(root, layout="{identity}/{modality}/{camera}/*")


def test_a_stated_layout_may_leave_the_modality_to_its_option(tmp_path):
    root = write(tmp_path, "walk/anna_1.jpg")
    with pytest.raises(InputError) as refused:
        read(root, layout="*/{identity}_*")
    said = "pictures of unknown modality: 1 (walk/anna_1.jpg); give --modality visible or infrared, or a --layout"
    assert str(refused.value) == f"{root}: {said} with {{modality}}"
    assert read(root, "infrared", "*/{identity}_*") == {"walk/anna_1.jpg": ("infrared", "anna", -1)}


def test_junk_of_a_published_set_is_nobody_and_noted(tmp_path, caplog):
    root = write(tmp_path, *both("train/0002_c1s1_000451_03.jpg", "test/-1_c3s2_000451_03.jpg"))
    assert read(root, layout="market1501")["visible/test/-1_c3s2_000451_03.jpg"] == ("visible", "", 3)
    nobody = "infrared/test/-1_c3s2_000451_03.jpg, visible/test/-1_c3s2_000451_03.jpg"
    assert [record.getMessage() for record in caplog.records] == [
        f"note: {root}: pictures of unknown people: 2 ({nobody})"
    ]


# Sets that number the people of two parts alike: a layout, a picture of 7 in each part, and the parts' names.
COUNTED_TWICE = {
    "MSMT17": ("msmt17", "train/0007/0007_000_01_0303morning_0015_0.jpg", "test/0007/0007_001_02_0303noon_0015_0.jpg"),
    "its masks": ("msmt17", "mask_train_v2/0007/0007_000_01_a_1_0.jpg", "mask_test_v2/0007/0007_001_02_a_1_0.jpg"),
    "by camera": ("msmt17", "train/cam1/0007_000_01_a_1_0.jpg", "test/cam2/0007_001_02_a_1_0.jpg"),
    "CUHK03": ("market1501", "bounding_box_train/0007_c1s1_1_00.png", "query/0007_c2s1_2_00.png"),
    "three parts": ("dukemtmc", "train/0007_c1_f1.jpg", "val/0007_c2_f2.jpg"),
    "two sets": ("mars", "one/bbox_test/0007C1T0001F001.jpg", "two/bbox_test/0007C2T0001F001.jpg"),
    "a part and none": ("market1501", "train/0007_c1s1_1_00.jpg", "0007_c2s1_2_00.jpg"),
}


@pytest.mark.parametrize(("layout", "one", "other"), COUNTED_TWICE.values(), ids=COUNTED_TWICE)
def test_a_number_in_two_parts_of_a_set_is_refused_and_each_remedy_does_as_it_says(tmp_path, layout, one, other):
    root = write(tmp_path / "set", *(f"{m}/{path}" for m in ("rgb", "ir") for path in (one, other)))
    with pytest.raises(InputError) as refused:
        read(root, layout=layout)
    problem, remedy = str(refused.value).split("; give --layout=")
    assert problem.startswith(f"{root}: people with the same number in different folders: 1 (000")
    different, same = re.findall(r"\S+:\w+", remedy)
    assert {person for _, person, _ in read(root, layout=same).values()} == {"0007"}
    people = {name: person for name, (_, person, _) in read(root, layout=different).items()}
    for modality in ("rgb", "ir"):
        assert people[f"{modality}/{one}"] == people[f"rgb/{one}"] != people[f"{modality}/{other}"]


def test_people_of_a_part_have_its_name_also_where_it_is_read_alone(tmp_path):
    names = [f"{part}/0007/0007_000_01_0303morning_0015_0.jpg" for part in ("train", "test")]
    root = write(tmp_path, *names)
    for below in ("", "test", "test/0007"):
        assert "test/0007" in {person for _, person, _ in read(root / below, "visible", "msmt17:different").values()}


def test_queries_and_galleries_of_one_set_have_the_same_people(tmp_path):
    names = (
        "query/0002_c1s1_1_00.jpg",
        "bounding_box_test/0002_c2s1_1_00.jpg",
        "bounding_box_train/0007_c2s1_1_00.jpg",
    )
    rows = read(write(tmp_path, *names), "visible", "market1501")
    assert [person for _, person, _ in rows.values()] == ["0002", "0007", "0002"]


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("msmt17:both", "lacks {identity}, {modality} and {camera}; give auto"),
        ("regdb:same", "lacks {identity}, {modality} and {camera}; give auto"),
        ("", "has an empty part"),
        ("--", "lacks {identity}, {modality} and {camera}; give auto, sysu_mm01, regdb"),
        ("{name}/*", "'{name}' is none of {identity}, {modality}"),
        ("{identity", "'{' is none of"),
        ("{modality}/{modality}", "has {modality} twice"),
        ("{identity}{camera}/*", "put something between '{identity}' and '{camera}'"),
        ("{identity}/../*", "has an empty part, or '.' or '..'"),
        ("**/{identity}/**/x/**/y", "has more than two '**'"),
        ("{identity}_*_*_*", "has more than 3 wildcards"),
        ("|".join(9 * ["{identity}"]), "has 9 templates, more than 8"),
        (301 * "a", "exceeds 300 characters"),
        ("{identity}\n", "is unprintable"),
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
    gallery = read_source([root], "auto", "--gallery", "{identity}/{modality}/{camera}/*")
    for query in ([root / "1/ir"], [root / "1/ir/D1/0.jpg"], [root / "1/ir/D1/0.jpg", root / "1/rgb/D2/0.jpg"]):
        assert set(read_source(query, "auto", "--query", gallery=gallery.layout).identities) == {"1"}
        with pytest.raises(InputError, match=r"fits no tree in docs/data\.md"):
            read_source(query, "auto", "--query")
        assert set(read_source(query, "infrared", "--query").identities) == {""}
    other = write(tmp_path / "others", *both("1/0.jpg"))
    assert set(read_source([other], "auto", "--query", gallery=gallery.layout).identities) == {"1"}


# what systems make, and names that double others

SYSTEMS = (
    *("@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg", "SYNOPHOTO_THUMB_XL.jpg", "#recycle/0.jpg", "#snapshot/0.jpg"),
    *("@tmp/0.jpg", "@Recycle/0.jpg", ".@__thumb/s100.jpg", "@Recently-Snapshot/0.jpg", "~snapshot/0.jpg"),
    *("$RECYCLE.BIN/S-1-5/$R4K2XJ.jpg", "RECYCLER/0.jpg", "System Volume Information/0.jpg", "FOUND.000/0.jpg"),
    *("Thumbs.db", "ehthumbs_vista.db", "desktop.ini", "Icon\r"),
    *("._0.jpg", ".DS_Store", ".AppleDouble/0.jpg", "__MACOSX/._0.jpg", "Network Trash Folder/0.jpg"),
    *(".Trash-1000/files/0.jpg", ".thumbnails/0.png", "lost+found/0.jpg", ".git/0.jpg", ".dropbox.cache/0.jpg"),
    *(".ipynb_checkpoints/0-checkpoint.jpg", ".trashed-1-0.jpg", "thumbs/0.jpg", "Thumbnails/0.jpg", "_thumbs/0.jpg"),
)


@pytest.mark.parametrize("place", ["", "visible", "infrared/anna"])
def test_what_systems_make_is_left_out_and_counted_in_one_line(tmp_path, caplog, place):
    pictures = both("anna/0.jpg", "ben/thumbs up.jpg", "ben/recycle/0.jpg", "ben/@anna/0.jpg")
    root = write(tmp_path / "in", *pictures, *(f"{place}/{name}".lstrip("/") for name in SYSTEMS))
    assert sorted(map(str, find_pictures(root))) == sorted(pictures)
    (line,) = caplog.messages
    assert f"{root}: left out, as systems make files and folders of such names: {len(SYSTEMS)} (" in line
    assert find_layout(root, [Path(path) for path in both("anna/0.jpg")]).text == "{modality}/{identity}/*"


def test_a_list_takes_what_it_names_and_says_so(tmp_path, caplog):
    root = write(tmp_path / "in", *both("anna/0.jpg", "anna/@eaDir/0.jpg"))
    listing = tmp_path / "list.txt"
    listing.write_text("./visible/anna/0.jpg\nvisible/anna/@eaDir/0.jpg\n../in/infrared/anna/0.jpg\n")
    assert len(find_pictures(root, listing)) == 3
    (line,) = caplog.messages
    assert "taken, as they are listed, though systems make files of such names: 1 (visible/anna/@eaDir/0.jpg)" in line


DOUBLES = "0.png|0.jpeg|0 (1).jpg|0(1).jpg|0 copy.jpg|0 - Copy (2).jpg|Copy of 0.jpg|0_mask.png|mask_0.png|0mask.png"
DOUBLES += "|masks/0.png|images/0.jpg|0 (Ann's conflicted copy 2024-05-01).jpg|0.sync-conflict-2024-1.jpg|0 - 副本.jpg"


@pytest.mark.parametrize("double", DOUBLES.split("|"))
def test_a_name_that_doubles_another_is_said(tmp_path, caplog, double):
    read(write(tmp_path / "in", *both("anna/0.jpg", "ben/0.jpg"), f"visible/anna/{double}"), "auto", LAYOUT)
    (line,) = caplog.messages
    assert ": pictures whose names double another's of the same person: 1, such as visible/anna/" in line


LAYOUT = "{modality}/{identity}/**"
SINGLE = "10.jpg|0_1.jpg|0-2.jpg|day2/0.jpg|1_mask.png|frame0.jpg|0001_c1s1_000451_03.jpg|00.jpg"


@pytest.mark.parametrize("other", SINGLE.split("|"))
def test_series_and_other_places_double_no_name(tmp_path, caplog, other):
    read(write(tmp_path / "in", *both("anna/0.jpg", "ben/0.jpg"), f"visible/anna/{other}"), "auto", LAYOUT)
    assert caplog.messages == []


def test_near_and_far_infrared_that_become_one_camera_are_said(tmp_path, caplog):
    root = write(tmp_path / "in", "rgb/1/0.jpg", "nir/1/0.jpg", "nir/1/1.jpg", "LWIR/1/0.jpg")
    read(root)
    (line,) = caplog.messages
    assert "lwir (1 pictures) and nir (2 pictures) are all read as infrared, as one camera's" in line
    assert len(read(root, "infrared")) == 4
    assert len(caplog.messages) == 1  # stated


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
    assert walk(tmp_path) == [Path("visible/anna/0.jpg")]
    assert "skipping unreadable folders: 1 (lost)" in caplog.text


# spellings in Unicode


def test_a_name_in_two_spellings_is_one_person_shown_as_first_read_and_a_list_has_that_of_the_disk(tmp_path):
    spelled = [unicodedata.normalize(form, "Zoé Åström") for form in ("NFC", "NFD")]
    root = write(tmp_path, f"visible/{spelled[0]}/0.jpg", f"infrared/{spelled[1]}/0.jpg", *both("anna/0.jpg"))
    assert {person for _, person, _ in read(root).values()} == {"anna", spelled[1]}
    listing = tmp_path / "list.txt"
    listing.write_text(f"visible\\{spelled[0]}\\0.jpg", encoding="utf-8")
    assert find_pictures(root, listing) == [Path(f"visible/{spelled[0]}/0.jpg")]
    listing.write_text(f"visible/{spelled[1]}/0.jpg", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"lines that name no file under .*: 1 \(line 1 .*; accents must be encoded as"
    ):
        find_pictures(root, listing)
