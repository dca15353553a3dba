"""Decoded and resized training pictures, kept from one epoch to the next in memory or in a file."""

import hashlib
import mmap
import os
from pathlib import Path

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.config import DataConfig
from ms_vireid.data.records import ImageSet
from ms_vireid.data.transforms import load_image
from ms_vireid.devices.memory import available_memory, require_memory

SHARE = 0.25  # of the free memory, at most, if nobody asked to keep pictures there


class PictureCache:
    """Pictures by index, uint8 [H, W, 3], each decoded the first time that any process asks for it.

    The pixels lie in one block that worker processes share: anonymous memory, or a mapped file. One byte for each
    picture says that it is there; it is set after the pixels. Two workers that decode the same picture write the same.

    A cache file belongs to one list of pictures (paths, sizes, times of change) at one size; others get another file.
    The next run goes on filling the file that an interrupted run leaves.

    Args:
        images: the set.
        config: `data.cache` ("none" decodes anew each time; "auto" is "memory" if the pictures of all `processes`
            take at most `SHARE` of what is free, else "none"), `data.cache_folder`, `data.image_size` and
            `data.resize_through`.
        processes: how many processes keep such a block each.

    Raises:
        InputError: there is not enough memory, or the file cannot be made, for example for lack of space.
    """

    def __init__(self, images: ImageSet, config: DataConfig, processes: int = 1):
        self.images = images
        self.size = height, width = config.image_size
        self.kind = config.cache
        self.path: Path | None = None
        self.through = config.resize_through
        self.bytes = len(images) * (1 + height * width * 3)
        if self.kind == "auto":
            fits = processes * self.bytes <= SHARE * (available_memory() or 0)
            self.kind = "memory" if fits else "none"
        elif self.kind == "memory":
            require_memory(processes * self.bytes, "data.cache=memory", "use data.cache=disk or none")
        if self.kind == "none":
            self._block = None
        elif self.kind == "memory":
            self._block = np.frombuffer(mmap.mmap(-1, self.bytes), np.uint8)
        else:
            self.path = config.cache_folder / f"pictures-{self._fingerprint()}.cache"
            self._block = _mapped(self.path, self.bytes)

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
        if self.kind == "none":
            return f"none ({size} do not fit in {SHARE:.0%} of the free memory; data.cache=disk keeps them in a file)"
        return f"{self.kind} in {self.path}: {size}" if self.path else f"{self.kind}: {size}"

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"three channels {self.size} {self.through}".encode())
        for path in self.images.paths:
            status = path.stat()
            digest.update(os.fsencode(f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\n"))
        return digest.hexdigest()[:16]


def _mapped(path: Path, size: int) -> np.ndarray:
    """The file as shared memory, uint8 [size]; a new one is all zeros, with its disk space reserved."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path, size)
        return np.memmap(path, np.uint8, "r+", shape=(size,))
    except (OSError, ValueError) as error:
        raise InputError(
            f"data.cache=disk: {path} ({size / 2**30:.2f} GiB) cannot be made or read ({error}); choose another "
            "data.cache_folder"
        ) from None


def _make(path: Path, size: int) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
