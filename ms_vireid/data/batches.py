"""Batches by number, from pictures on disk. Imports no framework. A broken picture raises InputError."""

import math
import mmap
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from ms_vireid.command.memory import available_memory, require_memory
from ms_vireid.config import Config, DataConfig
from ms_vireid.config.schema import FULL, ValueRanges
from ms_vireid.data.corruptions import CorruptedVersion
from ms_vireid.data.randomness import counter_generator
from ms_vireid.data.records import ImageSet
from ms_vireid.data.sampler import IdentitySampler
from ms_vireid.data.transforms import augment, load_image, normalise

MAX_SHARE = 0.25  # of the free memory, for cached pictures with data.cache=auto


class Batches:
    """Batches by number, whose pictures are written to the caller's memory. nbytes: the size of the largest batch."""

    nbytes: int

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, number: int) -> tuple:
        return self.read(number, np.empty(self.nbytes, np.uint8))

    def read(self, number: int, memory: np.ndarray) -> tuple:
        """Read a batch: its pictures, at the start of `memory` (uint8 [nbytes]), and its other arrays."""
        raise NotImplementedError


class TrainingBatches(Batches):
    """All batches of a run, from step 0: images float32 [2PK, 3, H, W] and labels int32 [2PK]. With
    `augmentation.visible_twice` there are 3PK rows: visible, visible with exchanged channels, infrared.

    With several devices, these are the batches of device `rank` of `devices`; in each step, all devices get different
    identities. Together they get the batch, down to the augmentation, that one device would get with P times `devices`
    identities.
    """

    def __init__(self, train: ImageSet, config: Config, rank: int = 0, devices: int = 1):
        self.train = train
        self.config = config
        self.sampler = IdentitySampler(train, config.train, config.seed, devices)
        self.visible = self.sampler.batch_size // 2  # visible pictures of all devices, in one version
        self.batch_size = config.augmentation.parts * self.visible
        parts = np.arange(self.batch_size).reshape(config.augmentation.parts, devices, -1)
        self.slots = parts[:, rank].reshape(-1)  # this device's rows of the batch of all devices
        self.nbytes = 12 * len(self.slots) * math.prod(config.data.image_size)  # three float32 per pixel
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
        """Write an augmented picture to `out`. draw: its number in the epoch, which selects its random numbers. second:
        make the second version."""
        pixels, infrared = self.pictures[index], bool(self.train.infrared[index])
        rng = counter_generator("augmentation", self.config.seed, epoch, draw)
        augment(pixels, infrared, self.gray_epochs[epoch - 1], self.config.augmentation, rng, out, second)


def behind(items: Iterable, count: int) -> Iterator:
    """Yield each item only after `count` more have been made, so that work that they queued on a device can proceed."""
    pending = deque()
    for item in items:
        pending.append(item)
        if len(pending) > count:
            yield pending.popleft()
    yield from pending


class EvaluationBatches(Batches):
    """The pictures of a set in order, in batches of one modality: images float32 [n, 3, H, W], indices [n].

    version: corrupts the visible pictures after resizing. rank, devices: several devices take the batches in turn.
    value_ranges: of pictures of 16 or 32 bits.
    """

    def __init__(
        self,
        images: ImageSet,
        image_size: tuple[int, int],
        batch_size: int,
        version: CorruptedVersion | None = None,
        rank: int = 0,
        devices: int = 1,
        value_ranges: ValueRanges = FULL,
    ):
        self.images = images
        self.image_size = image_size
        self.value_ranges = value_ranges
        self.version = version
        groups = [np.flatnonzero(~images.infrared), np.flatnonzero(images.infrared)]
        batches = [g[i : i + batch_size] for g in groups for i in range(0, len(g), batch_size)]
        self.batches = batches[rank::devices]
        self.nbytes = 12 * max(map(len, self.batches), default=0) * math.prod(image_size)  # three float32 per pixel

    def __len__(self) -> int:
        return len(self.batches)

    def read(self, number: int, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = self.batches[number]
        images = np.ndarray((len(index), 3, *self.image_size), np.float32, memory)
        corrupted = self.version and not self.images.infrared[index[0]]
        for image, i in zip(images, index, strict=True):
            pixels = self.load(i)
            normalise(self.version.apply(pixels, i) if corrupted else pixels, out=image)
        return images, index

    def load(self, index: int) -> np.ndarray:
        """Decode a picture, uint8 [H, W, 3]."""
        value_range = self.value_ranges.of(self.images.infrared[index], self.images.cameras[index])
        return load_image(self.images.paths[index], self.image_size, None, value_range)


class PictureCache:
    """Training pictures by index, uint8 [H, W, 3], each decoded when a process first asks for it.

    The pixels are stored in an anonymous mapping that worker processes share, after one byte per picture that marks it
    as present. The byte is set after the pixels; two workers that decode the same picture write the same bytes.

    `data.cache`: "none" decodes every time; "auto" is "memory" if the pictures of all `processes` take at most
    `MAX_SHARE` of the free memory, else "none". Raises InputError if "memory" does not fit.
    """

    def __init__(self, images: ImageSet, config: DataConfig, processes: int = 1):
        self.images = images
        self.size = config.image_size
        self.through = config.resize_through
        self.value_ranges = config.value_ranges
        self.bytes = len(images) * (1 + 3 * math.prod(self.size))
        self.kind = config.cache
        if self.kind == "auto":
            self.kind = "memory" if processes * self.bytes <= MAX_SHARE * available_memory() else "none"
        elif self.kind == "memory":
            require_memory(processes * self.bytes, "data.cache=memory", "use data.cache=none")
        self._block = np.frombuffer(mmap.mmap(-1, self.bytes), np.uint8) if self.kind == "memory" else None

    def __getitem__(self, index: int) -> np.ndarray:
        path, count = self.images.paths[index], len(self.images)
        value_range = self.value_ranges.of(self.images.infrared[index], self.images.cameras[index])
        if self._block is None:
            return load_image(path, self.size, self.through, value_range)
        pixels = self._block[count:].reshape(count, *self.size, 3)[index]
        if not self._block[index]:
            pixels[:] = load_image(path, self.size, self.through, value_range)
            self._block[index] = 1
        return pixels.copy()

    def __str__(self) -> str:
        size = f"{self.bytes / 2**30:.2f} GiB for {len(self.images)} pictures of {self.size[0]}x{self.size[1]}"
        too_large = f"none ({size} do not fit in {MAX_SHARE:.0%} of the free memory)"
        return f"memory: {size}" if self.kind == "memory" else too_large
