"""Whole batches by number, from pictures on disk; without a framework. A broken picture raises InputError."""

import math
import mmap
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from ms_vireid.config import Config, DataConfig
from ms_vireid.data.corruptions import CorruptedVersion
from ms_vireid.data.randomness import counter_generator
from ms_vireid.data.records import ImageSet
from ms_vireid.data.sampler import IdentitySampler
from ms_vireid.data.transforms import augment, load_image, normalise
from ms_vireid.devices.memory import available_memory, require_memory

SHARE = 0.25  # of the free memory that kept pictures take at most, unless the user asks to keep them


class Batches:
    """Batches by number, each with its pictures in memory that the caller may give. nbytes: what one needs at most."""

    nbytes: int

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, number: int) -> tuple:
        return self.read(number, np.empty(self.nbytes, np.uint8))

    def read(self, number: int, memory: np.ndarray) -> tuple:
        """The pictures of a batch, at the beginning of `memory` (uint8 [nbytes]), and what else it holds."""
        raise NotImplementedError


class TrainingBatches(Batches):
    """All batches of a run, from step 0: images float32 [2PK, 3, H, W] and labels int32 [2PK]; with
    `augmentation.visible_twice` [3PK], the visible ones, their second versions with exchanged channels, the infrared
    ones.

    With several devices each gets a batch of P different identities a step, and this is what device `rank` of `devices`
    gets. Together they are the batch that one device would get with P times `devices` identities, pictures and
    augmentation alike.
    """

    def __init__(self, train: ImageSet, config: Config, rank: int = 0, devices: int = 1):
        self.train = train
        self.config = config
        self.sampler = IdentitySampler(train, config.train, config.seed, devices)
        self.visible = self.sampler.batch_size // 2  # pictures of the step's whole batch, in one version
        self.batch_size = config.augmentation.parts * self.visible
        parts = np.arange(self.batch_size).reshape(config.augmentation.parts, devices, -1)
        self.slots = parts[:, rank].reshape(-1)  # of the step's whole batch
        self.nbytes = 12 * len(self.slots) * math.prod(config.data.image_size)  # three float32 a pixel
        self.pictures = PictureCache(train, config.data, devices)
        self.gray_epochs = [stage.visible == "gray" for stage in config.stages for _ in range(stage.epochs)]
        self._planned_epoch, self._plan = 0, None

    def __len__(self) -> int:
        return len(self.gray_epochs) * self.sampler.iterations

    def read(self, step: int, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        epoch, iteration = 1 + step // self.sampler.iterations, step % self.sampler.iterations
        if epoch != self._planned_epoch:
            self._planned_epoch, self._plan = epoch, self.sampler.plan(epoch)
        batch = self._plan[iteration]
        if self.config.augmentation.visible_twice:
            batch = np.concatenate([batch[: self.visible], batch])
        images = np.ndarray((len(self.slots), 3, *self.config.data.image_size), np.float32, memory)
        for image, slot in zip(images, self.slots, strict=True):
            second = self.config.augmentation.visible_twice and slot // self.visible == 1
            self._augment(batch[slot], epoch, iteration * len(batch) + slot, image, second)
        return images, self.train.labels[batch[self.slots]]

    def _augment(self, index: int, epoch: int, draw: int, out: np.ndarray, second: bool) -> None:
        """One augmented picture; `draw` counts the epoch's pictures and picks this one's random numbers. second: in its
        second version."""
        pixels, infrared = self.pictures[index], bool(self.train.infrared[index])
        rng = counter_generator("augmentation", self.config.seed, epoch, draw)
        augment(pixels, infrared, self.gray_epochs[epoch - 1], self.config.augmentation, rng, out, second)


def behind(items: Iterable, count: int) -> Iterator:
    """Each item when `count` more have been asked for, or all: what is queued while it is made is then under way."""
    made = deque()
    for item in items:
        made.append(item)
        if len(made) > count:
            yield made.popleft()
    yield from made


class EvaluationBatches(Batches):
    """The pictures of a set in order, in batches of one modality: images float32 [n, 3, H, W], indices [n].

    version: corrupts the visible pictures, at their size in the batch. rank, devices: several devices take the batches
    in turn.
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
        self.nbytes = 12 * max(map(len, self.batches), default=0) * math.prod(image_size)  # three float32 a pixel

    def __len__(self) -> int:
        return len(self.batches)

    def read(self, number: int, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = self.batches[number]
        images = np.ndarray((len(index), 3, *self.image_size), np.float32, memory)
        corrupted = self.version and not self.images.infrared[index[0]]
        for image, i in zip(images, index, strict=True):
            pixels = load_image(self.images.paths[i], self.image_size)
            normalise(self.version.apply(pixels, i) if corrupted else pixels, out=image)
        return images, index


class PictureCache:
    """Training pictures by index, uint8 [H, W, 3], each decoded the first time that any process asks for it.

    The pixels lie in one anonymous block that worker processes share, after one byte for each picture that says that
    it is there. The byte is set after the pixels; two workers that decode the same picture write the same.

    `data.cache`: "none" decodes anew each time; "auto" is "memory" where the pictures of all `processes` take at most
    `SHARE` of what is free, else "none".
    Raises InputError if there is not enough memory.
    """

    def __init__(self, images: ImageSet, config: DataConfig, processes: int = 1):
        self.images = images
        self.size = config.image_size
        self.through = config.resize_through
        self.bytes = len(images) * (1 + 3 * math.prod(self.size))
        self.kind = config.cache
        if self.kind == "auto":
            self.kind = "memory" if processes * self.bytes <= SHARE * available_memory() else "none"
        elif self.kind == "memory":
            require_memory(processes * self.bytes, "data.cache=memory", "use data.cache=none")
        self._block = np.frombuffer(mmap.mmap(-1, self.bytes), np.uint8) if self.kind == "memory" else None

    def __getitem__(self, index: int) -> np.ndarray:
        path, count = self.images.paths[index], len(self.images)
        if self._block is None:
            return load_image(path, self.size, self.through)
        pixels = self._block[count:].reshape(count, *self.size, 3)[index]
        if not self._block[index]:
            pixels[:] = load_image(path, self.size, self.through)
            self._block[index] = 1
        return pixels.copy()

    def __str__(self) -> str:
        size = f"{self.bytes / 2**30:.2f} GiB for {len(self.images)} pictures of {self.size[0]}x{self.size[1]}"
        too_large = f"none ({size} do not fit in {SHARE:.0%} of the free memory)"
        return f"memory: {size}" if self.kind == "memory" else too_large
