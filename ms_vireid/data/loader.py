"""Batches from worker processes, on `mindspore.dataset.dataloader`; an item is a whole batch.

A worker that meets a broken picture hands the error over as its item, and the iterators here raise it: the user
reads one line about the picture instead of the worker's traceback.
"""

import signal
from collections.abc import Iterator

import numpy as np
from mindspore.dataset.dataloader import DataLoader, Dataset

from ms_vireid.config import Config
from ms_vireid.data.randomness import counter_generator
from ms_vireid.data.records import ImageSet
from ms_vireid.data.sampler import IdentitySampler
from ms_vireid.data.transforms import augment, load_image, normalise
from ms_vireid.errors import InputError


class TrainingBatches(Dataset):
    """All batches of a run, from step 0: images float32 [2PK, 3, H, W] and labels int32 [2PK]."""

    def __init__(self, train: ImageSet, config: Config):
        self.train = train
        self.config = config
        parameters = config.train
        self.sampler = IdentitySampler(
            train, parameters.num_identities, parameters.num_instances, parameters.iterations, config.seed
        )
        self.gray_epochs = [stage.visible == "gray" for stage in config.stages for _ in range(stage.epochs)]
        self._planned_epoch, self._plan = 0, None

    def __len__(self) -> int:
        return len(self.gray_epochs) * self.sampler.iterations

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray] | InputError:
        epoch, iteration = 1 + step // self.sampler.iterations, step % self.sampler.iterations
        if epoch != self._planned_epoch:
            self._planned_epoch, self._plan = epoch, self.sampler.plan(epoch)
        batch = self._plan[iteration]
        try:
            images = [self._image(i, epoch, iteration * len(batch) + slot) for slot, i in enumerate(batch)]
        except InputError as error:
            return error
        return np.stack(images), self.train.labels[batch]

    def _image(self, index: int, epoch: int, draw: int) -> np.ndarray:
        """One augmented picture; `draw` counts the epoch's pictures and picks this one's random numbers."""
        infrared = bool(self.train.infrared[index])
        pixels = load_image(self.train.paths[index], infrared, self.config.data.image_size)
        rng = counter_generator("augmentation", self.config.seed, epoch, draw)
        return augment(pixels, infrared, self.gray_epochs[epoch - 1], self.config.augmentation, rng)


class EvaluationBatches(Dataset):
    """The pictures of a set in order, in batches of one modality: images float32 [n, 3, H, W], indices [n]."""

    def __init__(self, images: ImageSet, image_size: tuple[int, int], batch_size: int):
        self.images = images
        self.image_size = image_size
        groups = [np.flatnonzero(~images.infrared), np.flatnonzero(images.infrared)]
        self.batches = [g[i : i + batch_size] for g in groups for i in range(0, len(g), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray] | InputError:
        index = self.batches[number]
        infrared = bool(self.images.infrared[index[0]])
        try:
            pixels = [load_image(self.images.paths[i], infrared, self.image_size) for i in index]
        except InputError as error:
            return error
        return np.stack([normalise(p) for p in pixels]), index


def iterate(batches: Dataset, workers: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The items of `batches` from `start` on, in order, prepared ahead by `workers` processes (0: by this one).

    Closing the iterator early lets the workers finish what they have begun, and ends them.

    Raises:
        InputError: a picture cannot be decoded.
    """
    order = _Order(range(start, len(batches)))
    loader = iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=order,
            num_workers=min(workers, len(order.indices)),
            collate_fn=_unchanged,
            worker_init_fn=_ignore_interrupt,
        )
    )
    try:
        for item in loader:
            if isinstance(item, InputError):
                raise item
            yield item
    except (GeneratorExit, InputError):
        order.stopped = True
        for _ in loader:  # workers that are left with unread results would be waited for, then killed
            pass
        raise


class _Order:
    """Item numbers in order, until stopped."""

    def __init__(self, indices: range):
        self.indices = indices
        self.stopped = False

    def __iter__(self) -> Iterator[int]:
        for index in self.indices:
            if self.stopped:
                return
            yield index

    def __len__(self) -> int:
        return len(self.indices)


def _unchanged(item):
    return item


def _ignore_interrupt(_worker: int) -> None:
    """Ctrl-C reaches the whole process group; the main process decides when the workers stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
