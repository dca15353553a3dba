"""Which pictures are equal, and whom a model has seen, is told by the content of whole files, whatever their names."""

import base64
import hashlib
import os
import shutil
import time

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.data import contents
from ms_vireid.data.digests import copies, joined, pictures_checksum, training_record, unknown, unseen, without
from ms_vireid.data.readers import read_folder
from ms_vireid.data.records import image_set

from . import tree

PEOPLE = ("anna", "ben", "cleo", "dora")


@pytest.fixture
def data(tmp_path):
    return read_folder(tree.write_folder(tmp_path / "people", PEOPLE), 0.5)


def record(paths):
    return training_record(paths, (), {}).get("seen", "")


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


def test_people_of_whom_all_pictures_are_known_are_left_out_also_under_two_names(tmp_path, data):
    seen = record(data.train.paths)
    for modality in ("visible", "infrared"):
        shutil.copytree(data.root / modality / "anna", data.root / modality / "eve")
        shutil.copytree(data.root / modality / "anna", data.root / modality / "zoe")
        shutil.rmtree(data.root / modality / "anna")
    tree.write_picture(data.root / "visible/eve/new.jpg", seed=1000)
    assert names(everybody(data.root)) == ["ben", "cleo", "dora", "eve", "zoe"]
    assert names(unknown(everybody(data.root), seen)) == ["cleo", "dora"]


@pytest.mark.parametrize("size", [10, 70_000, 1 << 17, (1 << 17) + 1, 3_000_000])
def test_every_byte_of_a_picture_counts(tmp_path, size):
    content = bytearray(np.random.default_rng(0).bytes(size))
    (tmp_path / "a").write_bytes(content)
    for place in {0, size // 3, size // 2, size - 1}:
        changed = content.copy()
        changed[place] ^= 1
        (tmp_path / "b").write_bytes(changed)
        assert record([tmp_path / "a"]) != record([tmp_path / "b"])
    for other in (content + b"\0", content[:-1]):
        (tmp_path / "b").write_bytes(other)
        assert record([tmp_path / "a"]) != record([tmp_path / "b"])
    (tmp_path / "b").write_bytes(content)
    assert record([tmp_path / "a"]) == record([tmp_path / "b"])


def test_a_file_is_read_once_unless_it_has_changed_under_its_size_and_time(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"first")
    os.utime(path, ns=(1, 1))
    new = contents.digest(path)
    assert contents.digest(path) == new  # changed just now, and so read again
    monkeypatch.setattr(contents.time, "time_ns", lambda: time.monotonic_ns() + 2**62)
    assert contents.digest(path) == new
    monkeypatch.setattr(contents, "_digest", lambda path, by_ends: b"read")
    assert contents.digest(path) == new
    path.write_bytes(b"again")
    os.utime(path, ns=(1, 1))
    assert contents.digest(path) == b"read"


def test_what_is_no_file_of_a_picture_equals_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 1 << 40)
    odd = [tmp_path / name for name in ("pipe.jpg", "zero.jpg", "huge.jpg", "gone.jpg", ".")]
    assert contents.digests(odd).tolist() == [b""] * 5
    assert record(odd) == ""
    images = image_set([(path, i, 1, bool(i)) for i, path in enumerate(odd)])
    assert copies(tmp_path, images, images) == ([], [])
    assert unknown(images, record(odd)) is images


def by_ends(path):
    """As an earlier version digested pictures."""
    content = path.read_bytes()
    ends = content[: 1 << 16] + content[max(1 << 16, len(content) - (1 << 16)) :]
    return hashlib.blake2b(ends, digest_size=6, salt=len(content).to_bytes(8, "little")).digest()


def test_a_record_of_an_earlier_version_knows_large_pictures_by_their_ends_and_it_is_said(tmp_path, caplog):
    root = tmp_path / "people"
    for number, person in enumerate(PEOPLE):  # ben's pictures are anna's but for the middle, cleo's and dora's small
        for modality in ("visible", "infrared"):
            size = (300, 300) if number < 2 else (24, 16)
            path = tree.write_picture(root / modality / person / "0.bmp", number, size, gray=modality == "infrared")
            if person == "ben":
                content = bytearray((root / modality / "anna/0.bmp").read_bytes())
                content[len(content) // 2] ^= 1
                path.write_bytes(content)
    people = everybody(root)
    assert by_ends(root / "visible/anna/0.bmp") == by_ends(root / "visible/ben/0.bmp")
    of_two = [path for path in people.paths if path.parent.name in ("anna", "cleo")]
    assert names(unseen(people, record(of_two), root)) == ["ben", "dora"]
    assert "earlier version" not in caplog.text
    earlier = base64.b64encode(b"".join(map(by_ends, of_two))).decode()
    assert names(unseen(people, earlier, root)) == ["dora"]
    said = (
        "people: the model's record, by an earlier version, knows pictures of more than 128 KiB by their ends alone, "
    )
    assert f"{said}and takes 2 to test on for its own" in caplog.text


def test_records_are_joined_and_empty_ones_say_nothing(data):
    train, test = record(data.train.paths), record(data.test.paths)
    assert joined(train, "", test) == joined(test, train, train) == record(data.pictures)
    assert joined("", "") == record([]) == without(train, train) == ""
    assert without(record(data.pictures), test) == train
    began_from = {"seen": train, "seen_before": test, "shared": train}
    whole = training_record(data.train.paths, data.train.paths[:1], began_from)
    assert whole == {"seen": train, "seen_before": record(data.pictures), "shared": record(data.train.paths[:1])}
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


def test_pictures_that_are_trained_and_tested_on_are_said(data, caplog):
    shared = record(data.test.paths[:2])
    assert unseen(data.test, "", data.root, shared) is not None
    said = "people: the model was trained on 2 pictures of 1 people to test on, byte for byte; results are too good"
    assert said in caplog.text


def test_copies_are_counted_by_kind_with_the_people(tmp_path, data):
    assert copies(data.root, data.train, data.test) == ([], [])
    pairs = {
        "visible/anna/0.jpg": "visible/dora/again.jpg",
        "visible/ben/0.jpg": "infrared/ben/again.jpg",
        "infrared/cleo/0.jpg": "infrared/dora/cleo.jpg",
        "visible/cleo/0.jpg": "visible/cleo/0 (1).jpg",
    }
    for one, other in pairs.items():
        shutil.copy(data.root / one, data.root / other)
    images = read_folder(data.root, 0.5)
    wrong, beside = copies(data.root, images.train, images.test)
    twice = "results would be wrong; keep each once"
    assert wrong == [
        f"pictures both trained and tested on, byte for byte, of 1 people: 1 (visible/dora/again.jpg); {twice}",
        "pictures in both modalities, byte for byte, of 1 people: 2 (visible/ben/0.jpg, infrared/ben/again.jpg); "
        f"{twice}",
        "pictures under several names, byte for byte, of 2 people: 2 (infrared/cleo/0.jpg, infrared/dora/cleo.jpg); "
        f"{twice}",
    ]
    assert beside == [
        "copies of a person's pictures, byte for byte, of 1 people: 1 (visible/cleo/0.jpg); keep each once"
    ]
    wrong, beside = copies(data.root, images.test)
    assert [line.partition(",")[0] for line in wrong] == ["pictures under several names"]


def test_two_sets_are_alike_if_pictures_people_and_cameras_are(tmp_path, data):
    """Not if two people have changed their names, one by one picture."""
    expected = pictures_checksum(data.test)
    assert pictures_checksum(data.test.subset(np.arange(len(data.test))[::-1])) == expected
    root = shutil.copytree(data.root, tmp_path / "others")
    for modality in ("visible", "infrared"):
        (root / modality / "cleo").rename(root / modality / "zoe")
        (root / modality / "zoe/0.jpg").rename(root / modality / "zoe/new.jpg")
    assert pictures_checksum(read_folder(root, 0.5).test) == expected
    (root / "visible/zoe").rename(root / "visible/x")
    (root / "visible/dora").rename(root / "visible/zoe")
    (root / "visible/x").rename(root / "visible/dora")
    assert pictures_checksum(read_folder(root, 0.5).test) != expected
