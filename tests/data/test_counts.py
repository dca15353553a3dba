"""Counts against the published ones, on sets in memory of just as many pictures, and the command on small trees."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ms_vireid import check_data
from ms_vireid.command.running import run
from ms_vireid.config import DataConfig, SyntheticConfig
from ms_vireid.data import processes, validation
from ms_vireid.data.counts import PUBLISHED, expected, findings
from ms_vireid.data.records import ReIDData, image_set
from tests.data import tree

SETS = ("sysu_mm01", "regdb", "llcm")


def published(name: str) -> ReIDData:
    """A set of as many identities, cameras and pictures as published; people take a camera's pictures in turn."""
    sets = {}
    for first, split in ((1, "train"), (1001, "test")):
        rows = []
        for modality in ("visible", "infrared"):
            count = PUBLISHED[name][split, modality]
            for camera, pictures in (count.by_camera or {1: count.pictures}).items():
                people = [first + number % count.identities for number in range(pictures)]
                rows += [
                    (Path(f"{modality}/{person:04d}"), person, camera, modality == "infrared") for person in people
                ]
        images = image_set([(folder / f"{i}.jpg", *rest) for i, (folder, *rest) in enumerate(rows)])
        sets[split] = replace(images, people={person: f"{person:04d}" for _, person, *_ in rows})
    return ReIDData(name, Path("root"), name, **sets)


@pytest.fixture(scope="module")
def whole():
    return {name: published(name) for name in SETS}


def found(data: ReIDData) -> list[str]:
    return findings(data, data.name, expected(DataConfig(name=data.name)))


def test_the_published_counts_add_up_to_what_papers_and_logs_print():
    sysu = {part: count.pictures for part, count in PUBLISHED["sysu_mm01"].items()}
    assert list(sysu.values()) == [22258, 11909, 6775, 3803]
    assert sum(count.pictures for count in PUBLISHED["regdb"].values()) == 412 * 20
    assert sum(count.pictures for count in PUBLISHED["llcm"].values()) == 46767
    assert sum(PUBLISHED["llcm"][split, "visible"].identities for split in ("train", "test")) == 1064


@pytest.mark.parametrize("name", SETS)
def test_a_set_as_published_has_nothing_wrong(whole, name):
    assert found(whole[name]) == []


def test_missing_pictures_are_counted_by_camera(whole):
    data = whole["sysu_mm01"]
    dropped = np.zeros(len(data.train), bool)
    dropped[np.flatnonzero(data.train.cameras == 4)[:8]] = True
    (line,) = found(replace(data, train=data.train.subset(~dropped)))
    assert line.startswith("train visible: 22,250 pictures, not 22,258 (camera 4 5,803, not 5,811); files are missing")


def test_added_and_moved_pictures_are_told_from_missing_ones(whole):
    data = whole["sysu_mm01"]
    queries = np.flatnonzero(data.test.infrared)
    (line,) = found(replace(data, test=data.test.subset(np.append(np.arange(len(data.test)), queries[:1]))))
    assert line.startswith("test infrared: 3,804 pictures, not 3,803 (camera 3 1,884, not 1,883); files were added")
    cameras = data.test.cameras.copy()
    cameras[np.flatnonzero(cameras == 6)[0]] = 3
    (line,) = found(replace(data, test=replace(data.test, cameras=cameras)))
    assert line.startswith("test infrared: pictures of camera 3 1,884, not 1,883, camera 6 1,919, not 1,920; files lie")


def test_other_lists_are_one_line_and_not_missing_files_too(whole):
    train = whole["llcm"].train
    (line,) = found(replace(whole["llcm"], train=train.subset(train.identities <= 296)))
    assert line.startswith(
        "identities: train visible 296, not 713, train infrared 296, not 713; idx/ lacks the authors'"
    )


def test_an_identity_of_one_modality_is_named(whole):
    train = whole["llcm"].train
    lines = found(replace(whole["llcm"], train=train.subset(~train.infrared | (train.identities != 7))))
    assert lines[0].startswith("identities: train infrared 712, not 713; ")
    assert lines[1] == "train infrared: identities without a picture: 1 (0007); add some, or drop them"


def test_regdbs_people_have_ten_pictures_each(whole):
    data = whole["regdb"]
    identities = data.train.identities.copy()
    identities[np.flatnonzero(identities == 6)[9]] = 5  # the last visible one of ten: the sums stay
    assert found(replace(data, train=replace(data.train, identities=identities))) == [
        "train visible: identities without 10 pictures: 2 (0005, 0006); check idx/ and the files"
    ]


def test_the_synthetic_set_is_expected_as_configured(tmp_path):
    asked = SyntheticConfig(train_identities=2, val_identities=1, test_identities=2, images_per_camera=1)
    wanted = expected(DataConfig(name="synthetic", synthetic=asked))
    assert wanted["train", "visible"].by_camera == {1: 3, 2: 3, 4: 3, 5: 3}
    assert wanted["test", "infrared"].by_camera == {3: 2, 6: 2}
    assert expected(DataConfig(name="folder")) == {}


# the command


def check(*words: object) -> int:
    """Its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["check_data.py", *map(str, words)])
        try:
            run(check_data.main)
        except SystemExit as ended:
            return ended.code
    return 0


def test_own_folders_that_fit_together_end_with_0(tmp_path, capsys):
    root = tree.write_folder(tmp_path / "people")
    assert check("data.name=folder", "--data-root", root, "--json", tmp_path / "found.json") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"folder: {root}",
        "split  modality  identities  cameras  pictures",
        "train  visible            2        1         4",
        "train  infrared           2        1         4",
        "test   visible            2        1         4",
        "test   infrared           2        1         4",
        "16 pictures decoded; no problems",
    ]
    written = json.loads((tmp_path / "found.json").read_text())
    assert (written["problems"], written["unreadable"]) == ([], {})
    assert written["counts"][3]["found"] == {"identities": 2, "pictures": 4, "by_camera": {"2": 4}}


@pytest.mark.parametrize("few", [processes.FEW, 0], ids=["alone", "processes"])
def test_every_picture_is_decoded_and_the_broken_ones_named(tmp_path, capsys, monkeypatch, few):
    monkeypatch.setattr(processes, "FEW", few)
    monkeypatch.setattr(validation, "_CHUNK", 4)
    root = tree.write_folder(tmp_path / "people")
    for name in ("visible/anna/0.jpg", "infrared/dora/1.jpg"):
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: content.index(b"\xff\xda") + 20] + b"\xff\xd9")
    (root / "visible/anna/1.jpg").write_text("version https://git-lfs.github.com/spec/v1\n")
    (root / "visible/ben/0.jpg").write_bytes(b"")
    assert check("data.name=folder", "--data-root", root, "--json", tmp_path / "found.json") == 1
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "unreadable pictures: 2 (infrared/dora/1.jpg, visible/anna/0.jpg): Corrupt JPEG data: premature end of data "
        "segment; replace or remove them",
        "unreadable pictures: 1 (visible/anna/1.jpg): is a Git LFS pointer, not the file itself; run git lfs pull in "
        "its folder",
        "unreadable pictures: 1 (visible/ben/0.jpg): it is empty; replace or remove them",
        "16 pictures decoded; 3 problems",
    ]
    unreadable = json.loads((tmp_path / "found.json").read_text())["unreadable"]
    assert len(unreadable) == 4
    assert "it is empty" in unreadable["visible/ben/0.jpg"]


def test_pictures_that_are_not_used_end_with_1_and_unknown_trees_with_2(tmp_path, capsys):
    root = tree.write_folder(tmp_path / "people")
    tree.write_picture(root / "visible/nobody.jpg")
    assert check("data.name=folder", "--data-root", root) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "pictures that are not used: 1 (visible/nobody.jpg); move them to a person's folder, or away, or give a "
        "data.layout",
        "16 pictures decoded; 1 problem",
    ]
    root = tree.write_folder(tmp_path / "splits", ("train", "test"))
    assert check("data.name=folder", "--data-root", root, "--json", tmp_path / "found.json") == 2
    printed = capsys.readouterr().err
    levels = "its folders are infrared, visible, below them test, train"
    remedy = "say what its names are with data.layout, of {modality}, {identity}, {camera} and * (docs/data.md)"
    assert f"; {levels}; {remedy}\n" in printed
    assert not (tmp_path / "found.json").exists()
    assert check("data.name=folder", "--data-root", root, "data.layout={modality}/{identity}/*") == 0


def test_a_tree_that_is_not_as_published_ends_with_1_and_the_counts_beside_each_other(tmp_path, capsys):
    assert check("--config", "configs/pmt/regdb.yaml", "--data-root", tree.write_regdb(tmp_path)) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"regdb, split 1: {tmp_path}"
    assert printed[2].split() == ["split", "modality", *["found", "published"] * 3]
    assert printed[3] == "train  visible       3        206      1          1      6      2,060"
    assert printed[-1] == "20 pictures decoded; 5 problems"
