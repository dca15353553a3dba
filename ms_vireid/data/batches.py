"""Whole batches by number, from pictures on disk; without a framework.

A batch with a broken picture is an InputError instead, which a worker process can hand over (see `loader.py`).
"""

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.config import Config
from ms_vireid.data.cache import PictureCache
from ms_vireid.data.corruptions import CorruptedVersion
from ms_vireid.data.randomness import counter_generator
from ms_vireid.data.records import ImageSet
from ms_vireid.data.sampler import IdentitySampler
from ms_vireid.data.transforms import augment, load_image, normalise


class TrainingBatches:
    """All batches of a run, from step 0: images float32 [2PK, 3, H, W] and labels int32 [2PK].

    With several devices each gets a batch of P different identities a step, and this is what device `rank` of `devices`
    gets. Together they are the batch that one device would get with P times `devices` identities, pictures and
    augmentation alike.
    """

    def __init__(self, train: ImageSet, config: Config, rank: int = 0, devices: int = 1):
        self.train = train
        self.config = config
        parameters = config.train
        self.sampler = IdentitySampler(
            train,
            parameters.num_identities * devices,
            parameters.num_instances,
            parameters.iterations,
            config.seed,
            parameters.replacement,
        )
        halves = np.arange(self.sampler.batch_size).reshape(2, devices, -1)
        self.slots = halves[:, rank].reshape(-1)  # of the step's whole batch
        self.pictures = PictureCache(train, config.data, devices)
        self.gray_epochs = [stage.visible == "gray" for stage in config.stages for _ in range(stage.epochs)]
        self._planned_epoch, self._plan = 0, None

    def __len__(self) -> int:
        return len(self.gray_epochs) * self.sampler.iterations

    @property
    def nbytes(self) -> int:
        """The size of one batch's images."""
        return _nbytes(len(self.slots), self.config.data.image_size)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray] | InputError:
        epoch, iteration = 1 + step // self.sampler.iterations, step % self.sampler.iterations
        if epoch != self._planned_epoch:
            self._planned_epoch, self._plan = epoch, self.sampler.plan(epoch)
        batch = self._plan[iteration]
        try:
            images = [self._image(batch[slot], epoch, iteration * len(batch) + slot) for slot in self.slots]
        except InputError as error:
            return error
        return np.stack(images), self.train.labels[batch[self.slots]]

    def _image(self, index: int, epoch: int, draw: int) -> np.ndarray:
        """One augmented picture; `draw` counts the epoch's pictures and picks this one's random numbers."""
        infrared = bool(self.train.infrared[index])
        pixels = self.pictures[index]
        rng = counter_generator("augmentation", self.config.seed, epoch, draw)
        return augment(pixels, infrared, self.gray_epochs[epoch - 1], self.config.augmentation, rng)


class EvaluationBatches:
    """The pictures of a set in order, in batches of one modality: images float32 [n, 3, H, W], indices [n].

    version: corrupts the visible pictures, at their size in the batch.
    rank, devices: several devices take the batches in turn.
    """

    def __init__(
        self,
        images: ImageSet,
        image_size: tuple[int, int],
        batch_size: int,
        version: CorruptedVersion | None = None,
        rank: int = 0,
        devices: int = 1,
    ):
        self.images = images
        self.image_size = image_size
        self.version = version
        groups = [np.flatnonzero(~images.infrared), np.flatnonzero(images.infrared)]
        batches = [g[i : i + batch_size] for g in groups for i in range(0, len(g), batch_size)]
        self.batches = batches[rank::devices]

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def nbytes(self) -> int:
        """The size of the largest batch's images."""
        return _nbytes(max(map(len, self.batches), default=0), self.image_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray] | InputError:
        index = self.batches[number]
        infrared = bool(self.images.infrared[index[0]])
        try:
            pixels = [load_image(self.images.paths[i], self.image_size) for i in index]
        except InputError as error:
            return error
        if self.version and not infrared:
            pixels = [self.version.apply(p, i) for p, i in zip(pixels, index, strict=True)]
        return np.stack([normalise(p) for p in pixels]), index


def _nbytes(images: int, size: tuple[int, int]) -> int:
    return images * 3 * size[0] * size[1] * np.dtype(np.float32).itemsize
