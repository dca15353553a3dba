"""The picture cache: the pictures that decoding gives, decoded once, in whichever process."""

import numpy as np
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.data import batches as batches_module
from ms_vireid.data.batches import PictureCache, TrainingBatches
from ms_vireid.data.loader import iterate
from ms_vireid.data.readers import read_data
from ms_vireid.data.transforms import load_image

PICTURES = "synthetic: {train_identities: 6, val_identities: 2, test_identities: 4, images_per_camera: 2}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "tree"
    read_data(configuration(root).data)
    return root


def configuration(root, kind="none", *overrides):
    data = f"data={{name: synthetic, image_size: [32, 16], workers: 0, cache: {kind}, {PICTURES}}}"
    return load_config(CONFIG_ROOT / "pmt/sysu.yaml", [data, f"data.root={root}", "train.iterations=3", *overrides])


@pytest.fixture
def train(root):
    return read_data(configuration(root).data).train


@pytest.mark.parametrize("kind", ["none", "memory"])
@pytest.mark.parametrize("through", [None, (48, 24)])
def test_pictures_are_those_that_decoding_gives(train, root, kind, through):
    value = "null" if through is None else list(through)
    cache = PictureCache(train, configuration(root, kind, f"data.resize_through={value}").data)
    for _ in range(2):
        for index in range(len(train)):
            np.testing.assert_array_equal(cache[index], load_image(train.paths[index], (32, 16), through))
    assert not np.array_equal(load_image(train.paths[0], (32, 16), (48, 24)), load_image(train.paths[0], (32, 16)))


def test_a_picture_is_decoded_once(train, root, monkeypatch):
    decoded = []
    monkeypatch.setattr(batches_module, "load_image", lambda *a: decoded.append(a[0]) or load_image(*a))
    cache = PictureCache(train, configuration(root, "memory").data)
    for index in (0, 5, 0, 5, 5):
        cache[index]
    assert decoded == [train.paths[0], train.paths[5]]


@pytest.mark.parametrize(
    ("free", "processes", "kind"), [(4, 1, "memory"), (3.9, 1, "none"), (4, 2, "none"), (8, 2, "memory")]
)
def test_auto_keeps_pictures_where_they_take_a_quarter_of_the_free_memory(
    train, root, free, processes, kind, monkeypatch
):
    config = configuration(root, "auto").data
    size = PictureCache(train, config).bytes
    monkeypatch.setattr(batches_module, "available_memory", lambda: free * size)
    cache = PictureCache(train, config, processes)
    assert cache.kind == kind
    assert str(cache).startswith(kind)
    assert f"{size / 2**30:.2f} GiB for {len(train)} pictures of 32x16" in str(cache)
    np.testing.assert_array_equal(cache[0], load_image(train.paths[0], (32, 16)))


def test_more_than_there_is_of_memory_is_one_line(train, root, monkeypatch):
    monkeypatch.setattr("ms_vireid.command.memory.available_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"^data\.cache=memory needs .*; use data\.cache=none$"):
        PictureCache(train, configuration(root, "memory").data)


def test_changing_a_picture_leaves_the_cached_one_alone(train, root):
    cache = PictureCache(train, configuration(root, "memory").data)
    for index in (int(np.flatnonzero(~train.infrared)[0]), int(np.flatnonzero(train.infrared)[0])):
        expected = cache[index].copy()
        cache[index][:] = 0
        np.testing.assert_array_equal(cache[index], expected)


def test_workers_fill_the_block_that_all_share(root):
    config = configuration(root, "memory", "data.workers=2")
    batches = TrainingBatches(read_data(config.data).train, config)
    plain = configuration(root)
    expected = TrainingBatches(read_data(plain.data).train, plain)
    for number, (images, _) in zip(range(4), iterate(batches, 2), strict=False):
        np.testing.assert_array_equal(images, expected[number][0])
    seen = np.unique(batches.sampler.plan(1))
    assert batches.pictures._block[seen].all()


def test_a_broken_picture_is_not_kept(train, root, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    paths = (broken, *train.paths[1:])
    cache = PictureCache(
        type(train)(paths, train.identities, train.cameras, train.infrared), configuration(root, "memory").data
    )
    for _ in range(2):
        with pytest.raises(InputError, match=r"broken\.jpg: cannot be decoded"):
            cache[0]


def test_an_unknown_kind_of_cache_is_refused(root):
    with pytest.raises(InputError, match="input should be 'auto', 'none' or 'memory', got 'disk'"):
        configuration(root, "disk")
