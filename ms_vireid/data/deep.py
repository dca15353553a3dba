"""Pixels of 16 or 32 bits: what their values mean, and how they are shown in 8 bits."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image

from ms_vireid.config.schema import Range

TAIL = 0.005  # of a picture's pixels: what lies beyond is dead, hot or odd
_STRIP = 1 << 20  # pixels at a time
_FULL = (0, 65535)
_PNG_KIND = 25  # where a PNG says which channels it has
_COLOURS, _GRAY_ALPHA, _RGBA = 2, 4, 6


class NoPictureError(OSError):
    """A file is not a picture, or more than one. remedy: what to do."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.remedy = remedy

    @classmethod
    def several(cls, count: int) -> "NoPictureError":
        return cls(f"holds {count:,} pictures", "save each as a file of its own, or remove it")


@dataclass(frozen=True)
class Deep:
    """values: [H, W] or [H, W, 3], as the camera counted them. full: what is black and white unless a range is known;
    None: nothing says. alpha: uint8 [H, W]."""

    values: np.ndarray
    full: Range | None
    alpha: np.ndarray | None = None

    def shown(self, value_range: Range | None) -> np.ndarray:
        """Scale to uint8, [H, W] or [H, W, 3]: the range, default `full`, becomes 0 to 255, and NaN becomes 0.
        Transparent pixels are shown over gray. Raises OSError if no range is known."""
        if (value_range := value_range or self.full) is None:
            kind = self.values.dtype.name
            raise OSError(f"its pixels are {kind}, and no range of them is known: data.sixteen_bit=[low, high]")
        shown = np.empty(self.values.shape, np.uint8)
        for rows in self._strips():
            shown[rows] = _scaled(self.values[rows], value_range)
        if self.alpha is None:
            return shown
        picture = Image.fromarray(shown)
        gray = Image.new(picture.mode, picture.size, "#808080")
        gray.paste(picture, mask=Image.fromarray(self.alpha))
        return np.asarray(gray)

    def range(self) -> Range | None:
        """The values that leave out `TAIL` of the visible pixels at either end; None without any."""
        if self.values.dtype.kind != "f" and self.values.itemsize <= 2:
            counts, first = self._counts()
            below = np.cumsum(counts)
            low, high = _tails(int(below[-1]))
            return tuple(first + int(np.searchsorted(below, at, "right")) for at in (low, high)) if below[-1] else None
        values = self.values if self.alpha is None else self.values[self.alpha > 0]
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        ends = _tails(len(values))
        values.partition(ends)
        return tuple(values[at].item() for at in ends)

    def _counts(self) -> tuple[np.ndarray, int]:
        """Count how often each value of at most 16 bits is there, from the lowest possible, which is returned too."""
        first = int(np.iinfo(self.values.dtype).min)
        counts = np.zeros(1 << 8 * self.values.itemsize, np.int64)
        for rows in self._strips():
            values = self.values[rows] if self.alpha is None else self.values[rows][self.alpha[rows] > 0]
            counts += np.bincount(values.reshape(-1).astype(np.int64) - first, minlength=len(counts))
        return counts, first

    def _strips(self) -> Iterator[slice]:
        """Rows at a time, so that few pixels are copied to wider types."""
        height, width = self.values.shape[:2]
        step = max(1, _STRIP // width)
        return (slice(start, start + step) for start in range(0, height, step))


def levels_of(pixels: np.ndarray) -> int:
    """Count the different values in uint8 pixels."""
    strips = np.array_split(pixels.reshape(-1), 1 + pixels.size // _STRIP)
    return int(np.count_nonzero(sum(np.bincount(strip, minlength=256) for strip in strips)))


def _tails(count: int) -> tuple[int, int]:
    """Where the range of `count` sorted values begins and ends."""
    cut = int(TAIL * (count - 1))
    return cut, count - 1 - cut


def _scaled(values: np.ndarray, value_range: Range) -> np.ndarray:
    if values.dtype.kind != "f" and values.itemsize == 2:
        return _table(values.dtype.str, *value_range)[values.view(np.uint16)]
    return _levels(values, *value_range)


@lru_cache(maxsize=64)
def _table(kind: str, low: float, high: float) -> np.ndarray:
    return _levels(np.arange(1 << 16, dtype=np.uint16).view(kind), low, high)


def _levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    levels = (values.astype(np.float64) - low) * 255 / (high - low)
    return np.nan_to_num(levels, nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


def read_png(content: bytes) -> Deep:
    """Decode a PNG of 16 bits. Pillow cuts those of several channels to 8 bits, which are read here as bytes."""
    kind = content[_PNG_KIND]
    if kind == _GRAY_ALPHA:  # as many bytes a pixel as RGBA of 8 bits
        header = content[12:24] + bytes([8, _RGBA]) + content[26:29]
        checksum = zlib.crc32(header).to_bytes(4, "big")
        values = _png(content[:12] + header + checksum + content[33:], None).view(">u2")
        return Deep(values[:, :, 0].astype(np.uint16), _FULL, _upper(values[:, :, 1]))
    with Image.open(BytesIO(content), formats=("PNG",)) as image:
        image.load()
        clear = image.info.get("transparency")
        gray = None if kind in (_COLOURS, _RGBA) else np.asarray(image).astype(np.uint16)
    if gray is not None:
        return Deep(gray, _FULL, None if clear is None else _upper(np.where(gray == clear, 0, 65535)))
    mode = "RGBA" if kind == _RGBA else "RGB"
    pixels = _png(content, f"{mode};16B").astype(np.uint16) << 8  # the upper bytes, and then the lower ones
    pixels |= _png(content, f"{mode};16L")
    if kind == _RGBA:
        return Deep(np.ascontiguousarray(pixels[:, :, :3]), _FULL, _upper(pixels[:, :, 3]))
    opaque = None if clear is None else _upper(np.where((pixels == clear).all(2), 0, 65535))
    return Deep(pixels, _FULL, opaque)


def _png(content: bytes, raw: str | None) -> np.ndarray:
    """Decode a PNG, uint8 [H, W, C]. raw: Pillow's name of how bytes become pixels, in place of its own choice."""
    with Image.open(BytesIO(content), formats=("PNG",)) as image:
        if raw:
            image.tile = [(*tile[:3], raw) for tile in image.tile]
        return np.asarray(image)


def _upper(values: np.ndarray) -> np.ndarray:
    """The upper 8 of 16 bits."""
    return (values >> 8).astype(np.uint8)
