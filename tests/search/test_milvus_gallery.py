"""Milvus, embedded and as a server: the same pictures in the same order as exact search."""

import fcntl
import socket

import numpy as np
import pytest
from milvus_lite.adapter.grpc.server import start_server_in_thread
from pymilvus import MilvusClient

from ms_vireid.command.errors import InputError
from ms_vireid.search import milvus_gallery
from ms_vireid.search.local_gallery import LocalGallery
from ms_vireid.search.milvus_gallery import MilvusGallery

from .galleries import as_features, gallery, queries


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


@pytest.mark.parametrize("top_k", [1, 3, 10, 100])
def test_the_results_are_those_of_exact_search(opened, monkeypatch, top_k):
    monkeypatch.setattr(milvus_gallery, "ROWS_AT_ONCE", 25)  # so that insertion takes three batches
    monkeypatch.setattr(milvus_gallery, "QUERIES_AT_ONCE", 3)
    opened.add(gallery())
    exact = LocalGallery("gallery", gallery())
    assert len(opened) == 60
    assert found(opened, queries(), top_k) == found(exact, queries(), top_k)


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


def test_hnsw_finds_as_much_of_a_small_gallery(opened):
    opened.add(gallery(), "hnsw")
    exact = LocalGallery("gallery", gallery())
    assert found(opened, queries(), 5, None, 2000) == found(exact, queries(), 5)
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
    assert len(opened) == 60


def test_a_foreign_or_empty_collection_is_refused(opened):
    with pytest.raises(InputError, match="collection pictures holds no picture; fill it with --add"):
        opened.search(queries(), 1)
    opened.client.create_collection("pictures", dimension=12)
    with pytest.raises(InputError, match="was not made by this command; choose another --collection"):
        opened.add(gallery())


def test_a_collection_of_an_earlier_version_is_refused(opened):
    from pymilvus import DataType

    schema = opened.client.create_schema()
    for name in ("picture", "path", "modality", "checkpoint"):
        schema.add_field(name, DataType.VARCHAR, is_primary=name == "picture", max_length=64)
    for name in ("camera", "identity"):
        schema.add_field(name, DataType.INT64)
    schema.add_field("feature", DataType.FLOAT_VECTOR, dim=12)
    opened.client.create_collection("pictures", schema=schema)
    with pytest.raises(InputError, match="was made by an earlier version; choose another --collection"):
        opened.add(gallery())


def test_a_server_that_is_not_there_is_named_without_its_password(monkeypatch):
    monkeypatch.setattr(milvus_gallery, "_TIMEOUT", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError) as error:
        MilvusGallery(f"http://anna:secret@127.0.0.1:{port}", "pictures")
    said = str(error.value)
    assert said.startswith(f"milvus:http://127.0.0.1:{port}: ")
    assert said.endswith("check the address, and that the server runs")
    assert "secret" not in said


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


def test_paths_that_are_too_long_are_refused_before_anything_is_added(opened):
    with pytest.raises(InputError, match="the path is longer than 4096 bytes"):
        opened.add(gallery(root="/" + "a" * 5000))
    assert len(opened) == 0
