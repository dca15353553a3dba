"""The extractor's forward passes: what they leave of the model."""

import numpy as np
import pytest
from mindspore import nn, ops

from ms_vireid.backends.backend import Queued
from ms_vireid.backends.choosing import backend_named
from ms_vireid.data.batches import EvaluationBatches
from ms_vireid.data.readers import read_folder
from ms_vireid.engine.process_group import ProcessGroup
from ms_vireid.search import features
from ms_vireid.search.features import FeatureExtractor

from ..data.tree import write_folder

SIZE = (16, 8)


class Pixels(nn.Cell):
    """Features are a picture's first pixel."""

    BY_MODALITY = True

    def construct(self, images, modality):
        return images[:, :, 0, 0]


class UnitPixels(Pixels):
    def construct(self, images, modality):
        pixel = super().construct(images, modality)
        return pixel / ops.sqrt((pixel * pixel).sum(axis=1, keepdims=True))


@pytest.fixture
def test_set(tmp_path):
    return read_folder(write_folder(tmp_path, ("0001", "0002", "0003", "0004")), 0.5).test


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("end", ["read to the end", "closed early"])
def test_the_model_keeps_its_mode(test_set, training, end):
    model = UnitPixels().set_train(training)
    items = FeatureExtractor(model, backend_named("eager"), SIZE, 2).by_batch(EvaluationBatches(test_set, SIZE, 2))
    next(items)
    assert not model.training
    items.close() if end == "closed early" else list(items)
    assert model.training == training


@pytest.mark.parametrize(("name", "compiled"), [("numba", False), ("eager", False), ("graph", True)])
def test_threads_are_bound_as_the_backend_uses_them(test_set, monkeypatch, name, compiled):
    asked = []

    def iterate(batches, workers, start, compiled):
        asked.append(compiled)
        yield from ()

    monkeypatch.setattr(features, "iterate", iterate)
    list(FeatureExtractor(Pixels(), backend_named(name), SIZE, 2).by_batch(EvaluationBatches(test_set, SIZE, 2)))
    assert asked == [compiled]


@pytest.mark.parametrize(
    ("name", "order"),
    [("graph", "queue queue read queue read queue read read"), ("eager", "queue read " * 3 + "queue read")],
)
def test_a_graphs_next_batch_is_queued_before_the_last_one_is_read(test_set, monkeypatch, name, order):
    """So that a device does not wait for the host between two batches; PyNative computes as it is called."""
    done = []
    monkeypatch.setattr(Queued, "read", lambda self: done.append("read") or np.ones((self.count, 1)))
    extractor = FeatureExtractor(Pixels(), backend_named(name), SIZE, 2)
    monkeypatch.setattr(extractor, "queue", lambda pixels, modality: done.append("queue") or Queued(None, len(pixels)))
    list(extractor.by_batch(EvaluationBatches(test_set, SIZE, 2)))
    assert done == order.split()


class OneOfTwo(ProcessGroup):
    """A process that keeps to itself what it computed, so that two add up to the whole."""

    world_size = 2

    def __init__(self, rank):
        self.rank = rank


def test_the_processes_of_a_group_share_the_pictures(test_set):
    alone, *shares = (
        FeatureExtractor(UnitPixels(), backend_named("eager"), SIZE, 2, group=group).extract(test_set)
        for group in (ProcessGroup(), OneOfTwo(0), OneOfTwo(1))
    )
    assert [share.any(axis=1).sum() for share in shares] == [len(test_set) // 2] * 2
    np.testing.assert_array_equal(sum(shares), alone)


@pytest.mark.parametrize(("by_modality", "graphs"), [(True, ["infrared", "visible"]), (False, ["all"])])
def test_a_graph_is_compiled_once_for_each_way_through_the_model_and_fills_up_small_batches(by_modality, graphs):
    model = Pixels()
    model.BY_MODALITY = by_modality
    extractor = FeatureExtractor(model, backend_named("graph"), SIZE, 4)
    rng = np.random.default_rng(0)
    for count in (4, 1, 3):
        pixels = rng.standard_normal((count, 3, *SIZE)).astype(np.float32)
        for modality in ("visible", "infrared"):
            np.testing.assert_array_equal(extractor.queue(pixels, modality).read(), pixels[:, :, 0, 0])
    assert sorted(extractor._queues) == graphs
