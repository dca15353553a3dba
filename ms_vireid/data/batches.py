"""Whole batches by number, from pictures on disk; without a framework.

A batch with a broken picture is an InputError instead, so that a worker process can hand it over (see `loader.py`).
"""

import numpy as np

from ms_vireid.config import Config
from ms_vireid.data.cache import PictureCache
from ms_vireid.data.corruptions import CorruptedVersion
from ms_vireid.data.randomness import counter_generator
from ms_vireid.data.records import ImageSet
from ms_vireid.data.sampler import IdentitySampler
from ms_vireid.data.transforms import augment, load_image, normalise
from ms_vireid.errors import InputError


class TrainingBatches:
    """All batches of a run, from step 0: images float32 [2PK, 3, H, W] and labels int32 [2PK]."""

    def __init__(self, train: ImageSet, config: Config):
        self.train = train
        self.config = config
        parameters = config.train
        self.sampler = IdentitySampler(
            train, parameters.num_identities, parameters.num_instances, parameters.iterations, config.seed
        )
        self.pictures = PictureCache(train, config.data)
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
        pixels = self.pictures[index]
        rng = counter_generator("augmentation", self.config.seed, epoch, draw)
        return augment(pixels, infrared, self.gray_epochs[epoch - 1], self.config.augmentation, rng)


class EvaluationBatches:
    """The pictures of a set in order, in batches of one modality: images float32 [n, 3, H, W], indices [n].

    version: corrupts the visible pictures, at their size in the batch.
    """

    def __init__(
        self,
        images: ImageSet,
        image_size: tuple[int, int],
        batch_size: int,
        version: CorruptedVersion | None = None,
    ):
        self.images = images
        self.image_size = image_size
        self.version = version
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
        if self.version and not infrared:
            pixels = [self.version.apply(p, i) for p, i in zip(pixels, index, strict=True)]
        return np.stack([normalise(p) for p in pixels]), index
