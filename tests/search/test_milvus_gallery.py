"""Milvus, embedded and as a server: the same pictures in the same order as exact search."""

import errno
import fcntl
import os
import socket
import threading
import time
from contextlib import suppress

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
        with pytest.raises(InputError, match="collection pictures holds features of another checkpoint"):
            use(gallery(checkpoint="d" * 64))
        with pytest.raises(InputError, match="or made with another data"):
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
    ("address", "said"),
    [
        ("http://localhost:abc", "Port could not be cast to integer value as 'abc'; a server's address is http://HOST"),
        ("http://localhost:99999", "Port out of range 0-65535; a server's address is http://HOST:PORT"),
        ("http://[::1", "Invalid IPv6 URL; a server's address is http://HOST:PORT"),
        ("http://[::1]:19530", "pymilvus does not take IPv6 addresses; give a host name"),
        ("http://", "is not a server's address"),
        ("http://a b:1", "is not a server's address"),
        ("http://a\x00:1", "is not a server's address"),
        ("ftp://localhost:1", "is not a server's address"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_before_anybody_is_asked(monkeypatch, address, said):
    monkeypatch.setattr(milvus_gallery.MilvusGallery, "_ask", lambda *_: pytest.fail("asked"))
    with pytest.raises(InputError) as error:
        MilvusGallery(address, "pictures", create=True)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "é", "$x", "a" * 256])
def test_a_collections_name_is_checked_before_anything_is_made(tmp_path, name):
    with pytest.raises(InputError, match=r"--collection .*: is not a valid name in Milvus, which takes a letter or _"):
        MilvusGallery(str(tmp_path / "gallery.db"), name, create=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_things_stays_as_it_is(tmp_path):
    (tmp_path / "album.db").mkdir()
    (tmp_path / "album.db/photo.jpg").touch()
    (tmp_path / "album.db/collections").mkdir()  # a name that a gallery has, too
    (tmp_path / "file.db").touch()
    for name, said in (("album.db", "a folder of other things, not a gallery"), ("file.db", "is a file; a gallery of")):
        for create in (False, True):
            with pytest.raises(InputError, match=said):
                MilvusGallery(str(tmp_path / name), "pictures", create)
    assert {one.name for one in tmp_path.rglob("*")} == {"album.db", "photo.jpg", "collections", "file.db"}


@pytest.fixture
def proxied(tmp_path):
    """A server behind a proxy, with the proxy, which goes on passing bytes until it is stopped."""
    server, database, port = start_server_in_thread(str(tmp_path / "served"))
    proxy = Proxy(port)
    yield f"http://127.0.0.1:{proxy.port}", proxy
    proxy.close()
    server.stop(grace=0)
    database.close()


class Proxy:
    def __init__(self, port):
        self._target, self._sockets = port, [socket.create_server(("127.0.0.1", 0))]
        self.port = self._sockets[0].getsockname()[1]
        self.delay, self.silent = 0.0, threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                pair = self._sockets[0].accept()[0], socket.create_connection(("127.0.0.1", self._target))
                self._sockets += pair
                for source, target in (pair, pair[::-1]):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source, target):
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                time.sleep(self.delay)
                if not self.silent.is_set():
                    target.sendall(piece)


def test_a_server_that_is_slow_is_waited_for(proxied):
    address, proxy = proxied
    held = MilvusGallery(address, "pictures")
    proxy.delay = 0.01
    held.add(gallery())
    assert found(held, queries(), 3) == found(LocalGallery("gallery", gallery()), queries(), 3)
    held.close()


@pytest.mark.parametrize("gone", [False, True])
def test_a_server_that_falls_silent_or_goes_away_is_one_line(proxied, monkeypatch, gone):
    monkeypatch.setattr(milvus_gallery, "_REPLY", 1)
    address, proxy = proxied
    held = MilvusGallery(address, "pictures")
    held.add(gallery())
    proxy.silent.set()
    if gone:
        proxy.close()
    for use in (lambda: held.search(queries(), 1), lambda: held.add(gallery())):
        began = time.monotonic()
        with pytest.raises(InputError, match=r"milvus:http://127.0.0.1:\d+: .*; check the server, or choose another"):
            use()
        assert time.monotonic() - began < 5
    held.close()


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
        with pytest.raises(InputError, match="another process may have it open"):
            MilvusGallery("held.db", "pictures")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_told_from_one_that_is_open(tmp_path, monkeypatch, capfd, number):
    def refused(self):
        raise OSError(number, os.strerror(number), "LOCK")

    monkeypatch.setattr(MilvusLite, "_acquire_lock", refused)
    for _ in range(2):
        with pytest.raises(InputError, match=rf"cannot be opened \({os.strerror(number)}\); milvus-lite writes there"):
            MilvusGallery(str(tmp_path / "gallery.db"), "pictures", create=True)
    assert capfd.readouterr() == ("", "")


def test_paths_that_are_too_long_are_refused_before_anything_is_added(opened):
    with pytest.raises(InputError, match="the path is longer than 4096 bytes"):
        opened.add(gallery(root="/" + "a" * 5000))
    assert len(opened) == 0
