"""Decoded and resized training pictures, kept in memory from one epoch to the next."""

import mmap

import numpy as np

from ms_vireid.config import DataConfig
from ms_vireid.data.records import ImageSet
from ms_vireid.data.transforms import load_image
from ms_vireid.devices.memory import available_memory, require_memory

SHARE = 0.25  # of the free memory, at most, if nobody asked to keep pictures there


class PictureCache:
    """Pictures by index, uint8 [H, W, 3], each decoded the first time that any process asks for it.

    The pixels lie in one anonymous block that worker processes share. One byte for each picture says that it is there;
    it is set after the pixels. Two workers that decode the same picture write the same.

    Args:
        images: the set.
        config: `data.cache` ("none" decodes anew each time; "auto" is "memory" where the pictures of all `processes`
            take at most `SHARE` of what is free, else "none"), `data.image_size` and `data.resize_through`.
        processes: how many keep such a block each.

    Raises:
        InputError: there is not enough memory.
    """

    def __init__(self, images: ImageSet, config: DataConfig, processes: int = 1):
        self.images = images
        self.size = height, width = config.image_size
        self.through = config.resize_through
        self.bytes = len(images) * (1 + height * width * 3)
        self.kind = config.cache
        if self.kind == "auto":
            fits = processes * self.bytes <= SHARE * (available_memory() or 0)
            self.kind = "memory" if fits else "none"
        elif self.kind == "memory":
            require_memory(processes * self.bytes, "data.cache=memory", "use data.cache=none")
        self._block = np.frombuffer(mmap.mmap(-1, self.bytes), np.uint8) if self.kind == "memory" else None

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]; raises InputError for a picture that cannot be decoded."""
        path, count = self.images.paths[index], len(self.images)
        if self._block is None:
            return load_image(path, self.size, self.through)
        pixels = self._block[count:].reshape(count, *self.size, 3)[index]  # after the flags
        if not self._block[index]:
            pixels[:] = load_image(path, self.size, self.through)
            self._block[index] = 1
        return pixels.copy()

    def __str__(self) -> str:
        height, width = self.size
        size = f"{self.bytes / 2**30:.2f} GiB for {len(self.images)} pictures of {height}x{width}"
        too_large = f"none ({size} do not fit in {SHARE:.0%} of the free memory)"
        return f"memory: {size}" if self.kind == "memory" else too_large
