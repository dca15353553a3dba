"""Milvus, embedded and as a server: the same pictures in the same order as exact search."""

import errno
import fcntl
import os
import socket
import time
from dataclasses import replace

import numpy as np
import pytest
from milvus_lite.adapter.grpc.server import start_server_in_thread
from milvus_lite.db import MilvusLite
from milvus_lite.engine.collection import Collection
from pymilvus import MilvusClient

from ms_vireid.command.errors import InputError
from ms_vireid.search import milvus_gallery
from ms_vireid.search.local_gallery import LocalGallery
from ms_vireid.search.milvus_gallery import MilvusGallery

from .galleries import as_features, gallery, queries, with_ranges


@pytest.fixture(params=["embedded", "server"])
def address(request, tmp_path):
    if request.param == "embedded":
        yield str(tmp_path / "gallery.db")
        return
    server, database, port = start_server_in_thread(str(tmp_path / "served"))
    yield f"http://127.0.0.1:{port}"
    server.stop(grace=0)
    database.close()


@pytest.fixture
def opened(address):
    held = MilvusGallery(address, "pictures", create=True)
    yield held
    held.close()


def found(target, *arguments):
    return [
        [(hit.entry, pytest.approx(hit.similarity, abs=1e-6)) for hit in hits] for hits in target.search(*arguments)
    ]


def test_the_results_are_those_of_exact_search(opened, monkeypatch):
    monkeypatch.setattr(milvus_gallery, "ROWS_AT_ONCE", 25)  # so that insertion takes three batches
    monkeypatch.setattr(milvus_gallery, "QUERIES_AT_ONCE", 3)
    opened.add(gallery())
    exact = LocalGallery("gallery", gallery())
    assert len(opened) == 60
    for top_k in (1, 3, 10, 100):
        assert found(opened, queries(), top_k) == found(exact, queries(), top_k)


def test_more_results_than_milvus_gives_are_refused(opened, monkeypatch):
    monkeypatch.setattr(milvus_gallery, "_MOST_RESULTS", 59)
    opened.add(gallery())
    with pytest.raises(InputError, match="Milvus finds at most 59 pictures of its 60 for a query; give --top-k 59"):
        opened.search(queries(), 100)
    assert len(opened.search(queries(), 59)[0]) == 59


def test_cameras_filter(opened):
    opened.add(gallery())
    exact = LocalGallery("gallery", gallery())
    assert found(opened, queries(), 60, (2, 5)) == found(exact, queries(), 60, (2, 5))
    assert found(opened, queries(), 60, (9,)) == [[]] * 4


def test_adding_again_replaces_by_path(opened, monkeypatch):
    monkeypatch.delattr(MilvusClient, "insert")  # a server's would keep both, milvus-lite's does not
    opened.add(gallery())
    opened.add(gallery())
    assert len(opened) == 60
    changed = gallery(seed=9)
    opened.add(changed)
    assert len(opened) == 60
    exact = LocalGallery("gallery", changed)
    assert found(opened, queries(), 10) == found(exact, queries(), 10)
    opened.add(gallery(root="/elsewhere"))  # other pictures, although their relative paths are the same
    assert len(opened) == 120


def test_hnsw_finds_as_much_of_a_small_gallery(opened, monkeypatch):
    opened.add(gallery(), "hnsw")
    exact = LocalGallery("gallery", gallery())
    asked = []
    search = MilvusClient.search

    def noted(*arguments, **options):
        asked.append(options["search_params"]["params"])
        return search(*arguments, **options)

    monkeypatch.setattr(MilvusClient, "search", noted)
    for breadth in (2000, None):
        assert found(opened, queries(), 5, None, breadth) == found(exact, queries(), 5)
    assert [asked[0], asked[-1]] == [{"ef": 2000}, {"ef": milvus_gallery._BREADTH}]
    with pytest.raises(InputError, match="leave out --index flat"):
        opened.add(gallery(), "flat")


def test_a_breadth_that_an_exact_gallery_does_not_have_is_refused(opened):
    opened.add(gallery())
    with pytest.raises(InputError, match=r"--breadth 8: .* is searched whole, not by hnsw; leave it out"):
        found(opened, queries(), 5, None, 8)


def test_it_is_there_when_opened_again(address):
    for create in (True, False):
        target = MilvusGallery(address, "pictures", create)
        if create:
            target.add(gallery())
        assert len(target) == 60
        assert target.search(queries(), 1)[0][0].entry.path == "cam1/0003.jpg"
        target.close()


def test_features_of_another_width_or_checkpoint_are_refused(opened):
    opened.add(gallery())
    narrow = as_features(np.eye(5, dtype=np.float32), np.zeros(5, np.int32), np.zeros(5, np.int32))
    for use in (lambda features: opened.add(features), lambda features: opened.search(features, 1)):
        with pytest.raises(InputError, match="collection pictures holds features of 12 dimensions, not 5"):
            use(narrow)
        with pytest.raises(InputError, match="collection pictures holds features from another checkpoint or data"):
            use(gallery(checkpoint="d" * 64))
        with pytest.raises(InputError, match=r"from another checkpoint or data\.sixteen_bit"):
            use(with_ranges(gallery(), {"infrared": [100, 200]}))
    assert len(opened) == 60


def test_a_foreign_or_empty_collection_is_refused(opened):
    with pytest.raises(InputError, match="collection pictures holds no picture; fill it with --add"):
        opened.search(queries(), 1)
    opened.client.create_collection("pictures", dimension=12)
    with pytest.raises(InputError, match="was not made by this command; choose another --collection"):
        opened.add(gallery())


def test_a_server_that_is_not_there_is_named_without_its_password(monkeypatch):
    monkeypatch.setattr(milvus_gallery, "_CONNECTION", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError) as error:
        MilvusGallery(f"http://anna:secret@127.0.0.1:{port}", "pictures")
    said = str(error.value)
    assert said.startswith(f"milvus:http://127.0.0.1:{port}: ")
    assert said.endswith("check the address, and that the server runs")
    assert "secret" not in said


@pytest.mark.parametrize(
    "address",
    [
        *("http://localhost:abc", "http://localhost:99999", "http://[::1", "http://[::1]:19530", "http://"),
        *("http://a b:1", "http://a\x00:1", "ftp://localhost:1"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_before_anybody_is_asked(monkeypatch, address):
    monkeypatch.setattr(milvus_gallery.MilvusGallery, "_ask", lambda *_: pytest.fail("asked"))
    said = "is not a server's address; give http://HOST:PORT or https://HOST:PORT, HOST a name or an IPv4 address"
    with pytest.raises(InputError, match=said):
        MilvusGallery(address, "pictures", create=True)


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "é", "$x", "a" * 256])
def test_a_collections_name_is_checked_before_anything_is_made(tmp_path, name):
    with pytest.raises(
        InputError, match=r"--collection .*: is not a valid name in Milvus, which takes an ASCII letter or _"
    ):
        MilvusGallery(str(tmp_path / "gallery.db"), name, create=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_things_stays_as_it_is(tmp_path):
    (tmp_path / "album.db").mkdir()
    (tmp_path / "album.db/photo.jpg").touch()
    (tmp_path / "album.db/collections").mkdir()  # a name that a gallery has, too
    (tmp_path / "file.db").touch()
    for name, said in (("album.db", "is a folder, but not of a gallery"), ("file.db", "is a file; a gallery of")):
        for create in (False, True):
            with pytest.raises(InputError, match=said):
                MilvusGallery(str(tmp_path / name), "pictures", create)
    assert {one.name for one in tmp_path.rglob("*")} == {"album.db", "photo.jpg", "collections", "file.db"}


@pytest.mark.parametrize("gone", [False, True])
def test_a_server_that_falls_silent_or_goes_away_is_one_line(tmp_path, monkeypatch, gone):
    monkeypatch.setattr(milvus_gallery, "_REPLY", 1)
    server, database, port = start_server_in_thread(str(tmp_path / "served"))
    held = MilvusGallery(f"http://127.0.0.1:{port}", "pictures")
    held.add(gallery())
    if gone:
        server.stop(grace=0)
    for name in ("search", "upsert"):
        monkeypatch.setattr(Collection, name, lambda *_, **__: time.sleep(3), raising=False)
    for use in (lambda: held.search(queries(), 1), lambda: held.add(gallery())):
        began = time.monotonic()
        with pytest.raises(InputError, match=r"milvus:http://127.0.0.1:\d+: .*; check the server, or choose another"):
            use()
        assert time.monotonic() - began < 5
    held.close()
    server.stop(grace=0)
    database.close()


def test_a_server_whose_disk_is_full_is_one_line(opened, monkeypatch):
    opened.add(gallery())

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("insert", "upsert"):
        monkeypatch.setattr(Collection, name, full, raising=False)
    with pytest.raises(InputError, match=r"milvus:.*No space left on device.*; (check the server|free space), or"):
        opened.add(gallery(seed=9))
    assert found(opened, queries(), 5) == found(LocalGallery("gallery", gallery()), queries(), 5)


def test_a_folder_that_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address, said in (
        ("gallery", "the embedded gallery's name must end in .db"),
        ("no/gallery.db", "its folder does not exist; make it first"),
        ("gallery.db", "no such gallery; make it with --add"),
    ):
        with pytest.raises(InputError, match=said):
            MilvusGallery(address, "pictures")
    assert not list(tmp_path.iterdir())
    (tmp_path / "held.db").mkdir()
    with (tmp_path / "held.db" / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="close it in other processes"):
            MilvusGallery("held.db", "pictures")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capfd):
    def refused(self):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "LOCK")

    monkeypatch.setattr(MilvusLite, "_acquire_lock", refused)
    for _ in range(2):
        with pytest.raises(InputError, match=r"gallery\.db: .*; close it in other processes, check that"):
            MilvusGallery(str(tmp_path / "gallery.db"), "pictures", create=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("root", "last_person", "says"),
    [
        ("/" + "a" * 5000, "anna", "the path is longer than 4096 bytes"),
        ("/nowhere", "north/" + "é" * 125, "the person's name is longer than 255 bytes"),
    ],
)
def test_texts_that_are_too_long_are_refused_before_anything_is_added(opened, root, last_person, says):
    added = gallery(root=root)
    with pytest.raises(InputError, match=says):
        opened.add(replace(added, identities=np.array([*added.identities[:-1], last_person])))
    assert len(opened) == 0
