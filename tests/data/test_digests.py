"""Whom a model has seen is told by the pictures' content, whatever their names are."""

import shutil

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.data.digests import joined, record, unknown, unseen
from ms_vireid.data.readers import read_folder

from . import tree

PEOPLE = ("anna", "ben", "cleo", "dora")


@pytest.fixture
def data(tmp_path):
    return read_folder(tree.write_folder(tmp_path / "people", PEOPLE), 0.5)


def everybody(root):
    return read_folder(root, 1.0).test


def names(images):
    return list(images.names.values())


def test_renamed_moved_and_some_pictures_of_somebody_are_known(tmp_path, data):
    root = shutil.copytree(data.root, tmp_path / "others")
    (root / "visible/anna").rename(root / "visible/zoe")
    (root / "infrared/anna").rename(root / "infrared/zoe")
    first = sorted((root / "visible/ben").iterdir())[0]
    shutil.rmtree(root / "infrared/ben")
    for path in (root / "visible/ben").iterdir():
        if path != first:
            path.unlink()
    first.rename(first.with_name("new name.jpg"))
    tree.write_picture(root / "infrared/ben/0.jpg", seed=1000)
    seen = record(data.train.paths)
    assert names(data.train) == ["anna", "ben"]
    assert names(everybody(root)) == ["ben", "cleo", "dora", "zoe"]
    assert names(unknown(everybody(root), seen)) == ["cleo", "dora"]
    assert len(unknown(data.train, seen)) == 0
    assert names(unknown(data.test, seen)) == names(data.test)


def test_a_picture_that_several_share_tells_of_nobody(tmp_path, data):
    black = data.train.paths[0]
    for person in ("cleo", "dora"):
        shutil.copy(black, data.root / f"visible/{person}/no signal.jpg")
    again = read_folder(data.root, 0.5)
    assert names(unknown(again.test, record(data.train.paths))) == ["cleo", "dora"]
    (data.root / "visible/dora/no signal.jpg").unlink()
    assert names(unknown(read_folder(data.root, 0.5).test, record(data.train.paths))) == ["dora"]


def test_a_picture_is_told_by_its_ends_and_its_size(tmp_path):
    content = bytearray(np.random.default_rng(0).bytes(200_000))
    (tmp_path / "a").write_bytes(content)
    for place in (0, 65_535, 199_999):
        changed = content.copy()
        changed[place] ^= 1
        (tmp_path / "b").write_bytes(changed)
        assert record([tmp_path / "a"]) != record([tmp_path / "b"])
    (tmp_path / "b").write_bytes(content[:100_000] + b"x" + content[100_000:])
    assert record([tmp_path / "a"]) != record([tmp_path / "b"])
    (tmp_path / "b").write_bytes(content)
    assert record([tmp_path / "a"]) == record([tmp_path / "b"])


def test_records_are_joined_and_empty_ones_say_nothing(data):
    train, test = record(data.train.paths), record(data.test.paths)
    assert joined(train, "", test) == joined(test, train, train) == record(data.pictures)
    assert joined("", "") == record([]) == ""
    assert unknown(data.test, "") is data.test
    assert len(unknown(data.test.subset(np.array([], int)), train)) == 0


def test_how_many_are_known_is_said_and_all_are_refused(tmp_path, data, caplog):
    people = everybody(data.root)
    assert names(unseen(people, record(data.train.paths), data.root)) == ["cleo", "dora"]
    said = "people: the model was trained on 2 of the 4 people to test on, who are left out: anna, ben"
    assert said in caplog.text
    caplog.clear()
    unseen(people, record(data.train.paths), data.root, quiet=True)
    unseen(data.test, record(data.train.paths), data.root)
    assert not caplog.text
    with pytest.raises(InputError, match="people: the model was trained on all people to test on; give pictures of"):
        unseen(people, record(data.pictures), data.root)
