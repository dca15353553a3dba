import time

import numpy as np
import psutil
import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.config import check_config
from ms_vireid.data.batches import Batches, EvaluationBatches, TrainingBatches
from ms_vireid.data.loader import iterate
from ms_vireid.data.readers import read_sysu_mm01
from ms_vireid.data.transforms import IMAGENET_MEAN, IMAGENET_STD

from . import tree

P, K, ITERATIONS = 2, 2, 3
SMALL = {"patch_size": 8, "stride": 8}


def config_of(
    visible: tuple[str, ...] = ("rgb", "rgb"), seed: int = 0, model: dict = SMALL, identities: int = P, **augmentation
):
    return check_config(
        {
            "seed": seed,
            "data": {"name": "sysu_mm01", "image_size": [16, 16]},
            "model": model,
            "augmentation": augmentation,
            "stages": [{"epochs": 1, "visible": v, "losses": {"id": {}}} for v in visible],
            "train": {"num_identities": identities, "num_instances": K, "iterations": ITERATIONS},
        },
        "test",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_sysu_mm01(tree.write_sysu_mm01(tmp_path_factory.mktemp("sysu")))


@pytest.fixture
def broken(tmp_path):
    """A data set whose training pictures of one camera are cut off, which their headers do not show."""
    data = read_sysu_mm01(tree.write_sysu_mm01(tmp_path))
    for path in (tmp_path / "cam1" / "0005").iterdir():
        tree.truncate(path)
    return data


# Child processes that live as long as their parent.
LASTING = ("resource_tracker", "tests.device.probe", "tests.hostile.commands")


def test_a_visible_picture_can_come_twice_the_second_time_with_exchanged_channels(data):
    plain = {"flip": 0.0, "erasing": 0.0, "infrared_jitter": 0.0}
    once, twice = (
        TrainingBatches(data.train, config_of(model={"name": "agw"}, visible_twice=twice, **plain))
        for twice in (False, True)
    )
    images, labels = once[1]
    both, all_labels = twice[1]
    count = P * K
    np.testing.assert_array_equal(all_labels, np.concatenate([labels[:count], labels]))
    np.testing.assert_array_equal(both[:count], images[:count])
    np.testing.assert_array_equal(both[2 * count :], images[count:])
    second = both[count : 2 * count]
    assert (second == second[:, :1]).all()
    assert all(any(np.array_equal(a[0], c) for c in b) for a, b in zip(second, images[:count], strict=True))
    assert (once.batch_size, twice.batch_size) == (2 * count, 3 * count)


def test_two_devices_share_the_three_parts_of_a_batch(data):
    config = config_of(model={"name": "agw"}, visible_twice=True, identities=1)
    whole = TrainingBatches(data.train, config_of(model={"name": "agw"}, visible_twice=True, identities=2))[0]
    shares = [TrainingBatches(data.train, config, rank, 2)[0] for rank in range(2)]
    for part, together in enumerate(np.split(whole[0], 3)):
        pieces = [np.split(images, 3)[part] for images, _ in shares]
        np.testing.assert_array_equal(np.concatenate(pieces), together)


def workers_alive() -> list[psutil.Process]:
    """Child processes but multiprocessing's resource tracker and those that other tests keep."""
    children = [c for c in psutil.Process().children(recursive=True) if c.is_running()]
    return [c for c in children if not any(name in " ".join(c.cmdline()) for name in LASTING)]


def wait_until_no_workers(seconds: float = 10.0) -> list[psutil.Process]:
    end = time.monotonic() + seconds
    while workers_alive() and time.monotonic() < end:
        time.sleep(0.05)
    return workers_alive()


def assert_equal(batches, expected):
    for (images, labels), (expected_images, expected_labels) in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(labels, expected_labels)
        np.testing.assert_array_equal(images, expected_images)


def kept(batches, workers, start=0):
    """What `iterate` gives, with copies of the pictures."""
    return [(pixels.copy(), rest) for pixels, rest in iterate(batches, workers, start)]


def test_there_are_iterations_times_epochs_batches_of_the_promised_types(data):
    batches = kept(TrainingBatches(data.train, config_of()), workers=0)
    assert len(batches) == 2 * ITERATIONS
    for images, labels in batches:
        assert (images.shape, images.dtype) == ((2 * P * K, 3, 16, 16), np.float32)
        assert (labels.shape, labels.dtype) == ((2 * P * K,), np.int32)


def test_batches_do_not_depend_on_the_number_of_workers(data):
    batches = TrainingBatches(data.train, config_of())
    assert_equal(iterate(batches, workers=2), kept(batches, workers=0))


def test_many_batches_of_several_sizes_come_whole_from_slow_and_fast_workers():
    class Numbers(Batches):
        nbytes = 3 * 8

        def __len__(self):
            return 40

        def read(self, number, memory):
            time.sleep(0.01 * (number % 5 == 0))
            pixels = np.ndarray(1 + number % 3, np.float64, memory)
            pixels[:] = number
            return pixels, np.int32(number)

    found = []
    for pixels, number in iterate(Numbers(), workers=3, start=2):
        time.sleep(0.02 * (number % 7 == 0))  # meanwhile workers read what they may
        found.append((pixels.copy(), number))
    assert [pixels.tolist() for pixels, _ in found] == [[n] * (1 + n % 3) for n in range(2, 40)]
    assert [number for _, number in found] == list(range(2, 40))


@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_pictures_are_written_into_the_memory_that_is_given(data, kind):
    training = kind == "training"
    batches = TrainingBatches(data.train, config_of()) if training else EvaluationBatches(data.test, (16, 16), 3)
    memory = np.zeros(batches.nbytes, np.uint8)
    images, _ = batches.read(0, memory)
    assert np.shares_memory(images, memory)
    np.testing.assert_array_equal(images, batches[0][0])


@pytest.mark.parametrize("start", [1, ITERATIONS, ITERATIONS + 2, 2 * ITERATIONS])
def test_starting_at_a_step_is_skipping_those_before_it(data, start):
    batches = TrainingBatches(data.train, config_of())
    assert_equal(iterate(batches, workers=0, start=start), kept(batches, workers=0)[start:])


@pytest.mark.parametrize("other", [(0, 2, 0), (1, 1, 0), (0, 1, 1)], ids=["epoch", "seed", "place"])
def test_epochs_seeds_and_places_are_augmented_differently(data, other):
    images = np.empty((2, 3, 16, 16), np.float32)
    for image, (seed, epoch, draw) in zip(images, ((0, 1, 0), other), strict=True):
        TrainingBatches(data.train, config_of(seed=seed))._augment(0, epoch, draw, image, second=False)
    assert not np.array_equal(*images)


def test_every_picture_of_an_epoch_has_random_numbers_of_its_own(data):
    batches = TrainingBatches(data.train, config_of())
    draws = []
    batches._augment = lambda index, epoch, draw, out, second: draws.append((epoch, draw))
    list(iterate(batches, workers=0))
    assert len(draws) == len(set(draws)) == 2 * ITERATIONS * 2 * P * K


def test_a_stage_lasts_all_its_epochs(data):
    config = config_of(("gray", "rgb"))
    longer = config.stages[0].model_copy(update={"epochs": 2})
    batches = TrainingBatches(data.train, config.model_copy(update={"stages": (longer, config.stages[1])}))
    assert batches.gray_epochs == [True, True, False]


@pytest.mark.parametrize("step", [0, ITERATIONS], ids=["gray", "rgb"])
def test_all_but_visible_pictures_of_the_second_stage_have_three_equal_channels(data, step):
    batches = TrainingBatches(data.train, config_of(("gray", "rgb"), erasing=0.0))
    pixels = batches[step][0] * IMAGENET_STD[:, None, None] + IMAGENET_MEAN[:, None, None]
    spread = np.ptp(pixels, axis=1).max(axis=(1, 2))  # of each picture
    visible, infrared = spread[: P * K], spread[P * K :]
    assert infrared.max() < 1e-6  # float32, values up to 1 from a product and a sum
    assert visible.max() < 1e-6 if step == 0 else visible.min() > 0.1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_picture_is_an_input_error_that_names_it_and_ends_the_workers(broken, workers):
    with pytest.raises(InputError, match=r"cam1/0005/.*: cannot be decoded as a picture"):
        list(iterate(TrainingBatches(broken.train, config_of()), workers))
    assert wait_until_no_workers() == []


@pytest.mark.parametrize("end", ["read to the end", "closed early"])
def test_the_workers_end_with_the_iterator(data, end):
    batches = iterate(TrainingBatches(data.train, config_of()), workers=2)
    next(batches)
    batches.close() if end == "closed early" else list(batches)
    assert wait_until_no_workers() == []


def test_closing_early_does_not_read_the_rest(data):
    batches = TrainingBatches(data.train, config_of())
    read = []
    batches._augment = lambda index, epoch, draw, out, second: read.append(draw)
    items = iterate(batches, workers=0)
    next(items)
    items.close()
    assert len(read) <= 2 * (2 * P * K)  # the batch that was taken, and at most one that was begun


# evaluation


def test_evaluation_batches_hold_every_picture_once_and_one_modality_each(data):
    index = [index for _, index in iterate(EvaluationBatches(data.test, (16, 16), batch_size=3), workers=0)]
    assert sorted(np.concatenate(index)) == list(range(len(data.test)))
    assert all(len(set(data.test.infrared[one])) == 1 for one in index)
