"""The picture cache: the pictures that decoding gives, decoded once, in whichever process, and safe to interrupt."""

import os

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.data import cache as cache_module
from ms_vireid.data.batches import TrainingBatches
from ms_vireid.data.cache import PictureCache
from ms_vireid.data.loader import iterate
from ms_vireid.data.read import read_data
from ms_vireid.data.transforms import load_image

PICTURES = "synthetic: {train_identities: 6, val_identities: 2, test_identities: 4, images_per_camera: 2}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "tree"
    read_data(configuration(root, root.parent).data)
    return root


def configuration(root, folder, kind="none", *overrides):
    data = f"data={{name: synthetic, image_size: [32, 16], workers: 0, cache: {kind}, {PICTURES}}}"
    return load_config(
        CONFIG_ROOT / "pmt/sysu.yaml",
        [data, f"data.root={root}", f"data.cache_folder={folder}", "train.iterations=3", *overrides],
    )


@pytest.fixture
def train(root, tmp_path):
    return read_data(configuration(root, tmp_path).data).train


@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_pictures_are_those_that_decoding_gives(train, root, tmp_path, kind):
    cache = PictureCache(train, configuration(root, tmp_path, kind).data)
    for _ in range(2):
        for index in range(len(train)):
            expected = load_image(train.paths[index], (32, 16))
            np.testing.assert_array_equal(cache[index], expected)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_picture_is_decoded_once(train, root, tmp_path, kind, monkeypatch):
    decoded = []
    monkeypatch.setattr(cache_module, "load_image", lambda *a: decoded.append(a[0]) or load_image(*a))
    cache = PictureCache(train, configuration(root, tmp_path, kind).data)
    for index in (0, 5, 0, 5, 5):
        cache[index]
    assert decoded == [train.paths[0], train.paths[5]]


@pytest.mark.parametrize(
    ("free", "processes", "kind"), [(4, 1, "memory"), (3.9, 1, "none"), (4, 2, "none"), (8, 2, "memory")]
)
def test_auto_keeps_pictures_where_they_take_a_quarter_of_the_free_memory(
    train, root, tmp_path, free, processes, kind, monkeypatch
):
    config = configuration(root, tmp_path, "auto").data
    size = PictureCache(train, config).bytes
    monkeypatch.setattr(cache_module, "available_memory", lambda: free * size)
    cache = PictureCache(train, config, processes)
    assert cache.kind == kind
    assert str(cache).startswith(kind)
    np.testing.assert_array_equal(cache[0], load_image(train.paths[0], (32, 16)))


def test_more_than_there_is_of_memory_is_one_line(train, root, tmp_path, monkeypatch):
    monkeypatch.setattr("ms_vireid.devices.memory.available_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"^data\.cache=memory needs .*; use data\.cache=disk or none$"):
        PictureCache(train, configuration(root, tmp_path, "memory").data)


def test_changing_a_picture_leaves_the_cached_one_alone(train, root, tmp_path):
    cache = PictureCache(train, configuration(root, tmp_path, "memory").data)
    for index in (int(np.flatnonzero(~train.infrared)[0]), int(np.flatnonzero(train.infrared)[0])):
        expected = cache[index].copy()
        cache[index][:] = 0
        np.testing.assert_array_equal(cache[index], expected)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_workers_fill_the_block_that_all_share(root, tmp_path, kind):
    config = configuration(root, tmp_path, kind, "data.workers=2")
    batches = TrainingBatches(read_data(config.data).train, config)
    plain = configuration(root, tmp_path)
    expected = TrainingBatches(read_data(plain.data).train, plain)
    for number, (images, _) in zip(range(4), iterate(batches, 2), strict=False):
        np.testing.assert_array_equal(images, expected[number][0])
    seen = np.unique(batches.sampler.plan(1))
    assert batches.pictures._block[seen].all()


def test_a_file_serves_the_next_run(train, root, tmp_path, monkeypatch):
    config = configuration(root, tmp_path, "disk").data
    first = PictureCache(train, config)
    expected = [first[index] for index in range(4)]
    monkeypatch.setattr(cache_module, "load_image", lambda *_: pytest.fail("decoded again"))
    second = PictureCache(train, config)
    for index in range(4):
        np.testing.assert_array_equal(second[index], expected[index])


def test_other_pictures_and_other_sizes_have_other_files(train, root, tmp_path):
    small = PictureCache(train, configuration(root, tmp_path, "disk").data)
    large = PictureCache(train, configuration(root, tmp_path, "disk", "data.image_size=[64, 32]").data)
    part = PictureCache(train.subset(np.arange(8)), configuration(root, tmp_path, "disk").data)
    os.utime(train.paths[0], (1, 1))
    touched = PictureCache(train, configuration(root, tmp_path, "disk").data)
    twice = PictureCache(train, configuration(root, tmp_path, "disk", "data.resize_through=[48, 24]").data)
    assert len({c.path for c in (small, large, part, touched, twice)}) == 5


@pytest.mark.parametrize("kind", ["none", "memory"])
def test_pictures_can_be_resized_twice(train, root, tmp_path, kind):
    cache = PictureCache(train, configuration(root, tmp_path, kind, "data.resize_through=[48, 24]").data)
    for index in (0, len(train) - 1):
        expected = load_image(train.paths[index], (32, 16), (48, 24))
        np.testing.assert_array_equal(cache[index], expected)
        assert not np.array_equal(cache[index], load_image(train.paths[index], (32, 16)))


def test_the_size_is_said_and_taken(train, root, tmp_path):
    cache = PictureCache(train, configuration(root, tmp_path, "disk").data)
    assert cache.bytes == len(train) * (3 * 32 * 16 + 1)
    assert cache.path.stat().st_size == cache.bytes
    assert str(cache) == f"disk in {cache.path}: {cache.bytes / 2**30:.2f} GiB for {len(train)} pictures of 32x16"


def test_a_broken_picture_is_not_kept(train, root, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    paths = (broken, *train.paths[1:])
    cache = PictureCache(
        type(train)(paths, train.identities, train.cameras, train.infrared),
        configuration(root, tmp_path, "memory").data,
    )
    for _ in range(2):
        with pytest.raises(InputError, match=r"broken\.jpg: cannot be decoded"):
            cache[0]


@pytest.mark.parametrize("obstacle", ["folder is a file", "disk is full"])
def test_a_file_that_cannot_be_made_is_one_line(train, root, tmp_path, obstacle, monkeypatch):
    folder = tmp_path / "cache"
    if obstacle == "folder is a file":
        folder.write_text("")
    else:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"^data\.cache=disk: .*choose another data\.cache_folder$"):
        PictureCache(train, configuration(root, folder, "disk").data)
    assert not list(tmp_path.glob("cache/*"))
