"""TIFF files: their single picture, whether it is whole, and pixels of 16 or 32 bits.

Pillow decodes pixels of 8 bits; it knows few kinds of deeper ones, and cuts several channels to 8 bits. Those are put
together here from strips and tiles, which zlib and Pillow's libtiff decompress to bytes (docs/data.md says why no other
library is used).
"""

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import BinaryIO

import numpy as np
from PIL import Image

from ms_vireid.data.deep import Deep, NoPictureError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two have offsets of 64 bits
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL, _TEXT = 254, 256, 257, 258, 259, 262, 266, 270
_STRIPS, _ORIENTATION, _CHANNELS, _ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 274, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _SUB_IMAGES, _EXTRA, _FORMAT = 322, 323, 324, 325, 330, 338, 339
_PALETTE, _JPEG_TABLES, _DEPTH = 320, 347, 32997
_NUMBERS = {_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL, _STRIPS, _ORIENTATION, _CHANNELS}
_NUMBERS |= {_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _SUB_IMAGES}
_NUMBERS |= {_EXTRA, _FORMAT, _PALETTE, _DEPTH}
_TEXTS = {_TEXT, _JPEG_TABLES}
_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_PAGES = 10_000
_ONE_PICTURE = 4 + 1  # of a page's subfile type: a mask, or another page in lower resolution
_PLAIN, _LZW, _JPEG, _DEFLATE, _PACKBITS, _ZSTD = {1}, {5}, {7}, {8, 32946}, {32773}, {50000}
_READ = _PLAIN | _LZW | _DEFLATE | _PACKBITS | _ZSTD
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_INTERPRETATIONS = {3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 32803: "a colour filter array"}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_UNASSOCIATED = 2  # an extra channel that is alpha, by which the colours are not multiplied
_KINDS = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f"}


@dataclass(frozen=True)
class Tiff:
    """The picture of a TIFF. index: its page's number. tags: the page's numbers, and bytes, by code. order: "<" or
    ">"."""

    file: BinaryIO
    index: int
    tags: dict[int, tuple[int, ...] | bytes]
    order: str

    def number(self, code: int, default: int) -> int:
        return self.tags.get(code, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        return self.number(_WIDTH, 0), self.number(_HEIGHT, 0)

    @property
    def bits(self) -> int:
        """Of a channel; 0 if they differ."""
        bits = set(self.tags.get(_BITS, (1,)))
        return bits.pop() if len(bits) == 1 else 0

    @property
    def format(self) -> int:
        """What all samples are: unsigned, signed, floats; 0 if they differ."""
        formats = set(self.tags.get(_FORMAT, (_UNSIGNED,)))
        return formats.pop() if len(formats) == 1 else 0

    @property
    def is_deep(self) -> bool:
        """Whether its pixels are not those of 8 bits or fewer, which Pillow decodes."""
        return max(self.tags.get(_BITS, (1,))) > 8 or self.format not in (_UNSIGNED, 4)  # 4: undefined

    @property
    def orientation(self) -> int:
        value = self.number(_ORIENTATION, 1)
        return value if value in range(1, 9) else 1

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Offset and size of the strips or tiles."""
        codes = (_TILES, _TILE_BYTES) if _TILES in self.tags else (_STRIPS, _STRIP_BYTES)
        return list(zip(*(self.tags.get(code, ()) for code in codes), strict=False))

    def require_whole(self, require_jpeg: Callable[[bytes], None]) -> None:
        """Raise OSError for strips or tiles outside the file, or whose decoder tells damage that libtiff passes over.
        require_jpeg: raises it for a damaged JPEG."""
        if max(self.tags.get(_PALETTE, (256,))) < 256:
            raise OSError("its palette has 8 bits, and not TIFF's 16; save it as RGB")
        size, compression = self.file.seek(0, 2), self.number(_COMPRESSION, 1)
        for offset, count in self.chunks:
            if offset + count > size:
                raise OSError("it is cut off: its pixels reach beyond its end")
            if compression in _DEFLATE and not self.is_deep:
                _inflated(self._chunk(offset, count), None)
            elif compression in _JPEG:
                tables = self.tags.get(_JPEG_TABLES, b"\xff\xd8\xff\xd9")
                require_jpeg(tables[:-2] + self._chunk(offset, count)[2:])

    def read(self) -> Deep:
        """Decode pixels of 16 or 32 bits. Raises OSError, with the reason, for those whose meaning is not clear."""
        (width, height), channels = self.size, self.number(_CHANNELS, 1)
        photometric = self.number(_PHOTOMETRIC, -1)
        colours = 3 if photometric == _RGB else 1
        alpha = self._check(photometric, channels - colours)
        pixels = self._pixels(width, height, channels)
        values = np.ascontiguousarray(pixels[:, :, :colours] if colours > 1 else pixels[:, :, 0])
        if photometric == _WHITE_IS_ZERO:
            np.subtract((1 << self.bits) - 1, values, out=values)
        full = (0, (1 << self.bits) - 1) if self.format == _UNSIGNED and self.bits <= 16 else None
        return Deep(values, full, (pixels[:, :, -1] >> 8).astype(np.uint8) if alpha else None)

    def _check(self, photometric: int, extra: int) -> bool:
        """Raise OSError for a kind that is not read; return whether there is an alpha channel."""
        kind = f"a TIFF of {self.bits or 'different'} bits"
        packed = self.format == _UNSIGNED and 8 < self.bits < 16
        widths = {_UNSIGNED: (16, 32, 64), _SIGNED: (8, 16, 32, 64), _FLOAT: (16, 32, 64)}.get(self.format, ())
        if not packed and self.bits not in widths:
            raise OSError(f"{kind} and sample format {self.format} is not read")
        if (compression := self.number(_COMPRESSION, 1)) not in _READ:
            raise OSError(f"{kind} with compression {compression} is not read; save it with Deflate")
        if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
            named = _INTERPRETATIONS.get(photometric, f"photometric interpretation {photometric}")
            raise OSError(f"{kind} in {named} is not read; save it as gray or RGB")
        if photometric == _WHITE_IS_ZERO and self.format != _UNSIGNED:
            raise OSError(f"{kind} whose signed or floating values have white as 0 is not read; save black as 0")
        if self.number(_FILL, 1) != 1:
            raise OSError(f"{kind} with reversed bits is not read")
        alpha = extra == 1 and self.tags.get(_EXTRA) == (_UNASSOCIATED,) and (self.format, self.bits) == (_UNSIGNED, 16)
        if extra and not alpha:
            raise OSError(f"{kind} with {extra} more channels than its colours is not read; save it as gray or RGB")
        return alpha

    def _pixels(self, width: int, height: int, channels: int) -> np.ndarray:
        """Put the strips or tiles together, [H, W, channels]."""
        planes = channels if channels > 1 and self.number(_PLANAR, 1) == 2 else 1
        each = channels // planes
        if _TILES in self.tags:
            columns, rows = self.number(_TILE_WIDTH, 0), self.number(_TILE_HEIGHT, 0)
        else:
            columns, rows = width, min(self.number(_ROWS, height), height)
        if not (columns and rows):
            raise OSError("its tiles are empty")
        across, down = -(-width // columns), -(-height // rows)
        if len(self.chunks) != planes * across * down:
            raise OSError("parts of its pixels are missing")
        bits = 16 if self.bits < 16 and self.format == _UNSIGNED else self.bits
        pixels = np.empty((height, width, channels), f"{_KINDS[self.format]}{bits // 8}")
        for number, (offset, count) in enumerate(self.chunks):
            plane, place = divmod(number, across * down)
            y, x = place // across * rows, place % across * columns
            stored = rows if _TILES in self.tags else min(rows, height - y)
            part = self._samples(self._chunk(offset, count), stored, columns, each)
            shown = pixels[y : y + rows, x : x + columns, plane * each : (plane + 1) * each]
            shown[:] = part[: shown.shape[0], : shown.shape[1]]
        return pixels

    def _chunk(self, offset: int, count: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(count)

    def _samples(self, chunk: bytes, rows: int, columns: int, channels: int) -> np.ndarray:
        """Decompress a strip or tile, [rows, columns, channels]."""
        in_row = (columns * channels * self.bits + 7) // 8
        content = _decompressed(chunk, self.number(_COMPRESSION, 1), rows, in_row)
        if len(content) < rows * in_row:
            raise OSError("parts of its pixels are missing")
        content = np.frombuffer(content, np.uint8, rows * in_row).reshape(rows, in_row)
        predictor = self.number(_PREDICTOR, 1) if self.number(_COMPRESSION, 1) in _LZW | _DEFLATE | _ZSTD else 1
        if self.bits % 8:
            if predictor != 1:
                raise OSError(f"a TIFF of {self.bits} bits with predictor {predictor} is not read")
            return _unpacked(content, self.bits, columns * channels).reshape(rows, columns, channels)
        kind = f"{_KINDS[self.format]}{self.bits // 8}"
        if predictor == 3 and self.format == _FLOAT:  # differences of bytes, the highest of all samples first
            content = np.add.accumulate(content.reshape(rows, -1, channels), axis=1, dtype=np.uint8)
            content = content.reshape(rows, self.bits // 8, -1).swapaxes(1, 2)
            return np.ascontiguousarray(content).view(f">{kind}").reshape(rows, columns, channels)
        values = content.view(f"{self.order}{kind}").reshape(rows, columns, channels)
        if predictor == 1:
            return values
        if predictor != 2 or self.format == _FLOAT:
            raise OSError(f"its predictor {predictor} is not read")
        values = values.astype(kind)
        return np.add.accumulate(values, axis=1, dtype=values.dtype)


def open_tiff(file: BinaryIO) -> Tiff:
    """Read the directories of a TIFF and choose its picture; thumbnails and masks beside it do not count. Raises
    OSError if they are damaged or hold several pictures."""
    pages = list(_pages(file))
    whole = [page for page in pages if not page.number(_SUBFILE, 0) & _ONE_PICTURE]
    if not whole and (len(pages) != 1 or _SUB_IMAGES in pages[0].tags):
        raise OSError("it holds thumbnails or masks alone, or its picture among its sub-images")
    page = (whole or pages)[0]
    count = max(len(whole), page.number(_DEPTH, 1), _stacked(page))
    if count > 1:
        raise NoPictureError.several(count)
    return page


def _stacked(page: Tiff) -> int:
    """How many pictures a microscope's program says to have put behind one directory."""
    text = page.tags.get(_TEXT, b"").rstrip(b"\0 \n")
    if text.startswith(b"ImageJ="):
        images = re.search(rb"^images=(\d{1,9})\r?$", text, re.MULTILINE)
        return int(images[1]) if images else 1
    if text.startswith(b'{"shape":'):
        try:
            shape = json.loads(text)["shape"]
            return prod(shape) // max(1, prod(page.size) * page.number(_CHANNELS, 1))
        except (ValueError, TypeError, LookupError, RecursionError):
            return 1
    return 1


def _pages(file: BinaryIO) -> Iterator[Tiff]:
    size = file.seek(0, 2)
    file.seek(0)
    header = file.read(16)
    order, big = {b"II": "<", b"MM": ">"}[header[:2]], header[2:4] in (b"+\0", b"\0+")
    at = struct.unpack_from(f"{order}Q" if big else f"{order}I", header, 8 if big else 4)[0]
    places = set()
    while at:
        if at in places or len(places) >= _MOST_PAGES:
            raise OSError("its directories are damaged")
        places.add(at)
        tags, at = _directory(file, at, size, order, big)
        yield Tiff(file, len(places) - 1, tags, order)
    if not places:
        raise OSError("it has no directory")


def _directory(file: BinaryIO, at: int, size: int, order: str, big: bool) -> tuple[dict, int]:
    """Read a directory: the tags that say what the pixels are, and where the next directory is."""
    counts, entry, offset = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")

    def read(form: str) -> tuple:
        content = file.read(struct.calcsize(order + form))
        if len(content) < struct.calcsize(order + form):
            raise OSError("its directory is cut off")
        return struct.unpack(order + form, content)

    file.seek(at)
    (count,) = read(counts)
    if count * struct.calcsize(order + entry) > size:
        raise OSError("its directory is damaged")
    entries = [read(entry) for _ in range(count)]
    (following,) = read(offset)
    tags: dict[int, tuple[int, ...] | bytes] = {}
    for code, kind, number, field in entries:
        if code not in _NUMBERS | _TEXTS:
            continue
        form = _TYPES.get(kind)
        if form is None or number > size:
            raise OSError(f"its tag {code} is damaged")
        length = number * struct.calcsize(order + form)
        if length > len(field):
            file.seek(struct.unpack(order + offset, field)[0])
            field = file.read(length)
        if len(field) < length or not number:
            raise OSError(f"its tag {code} is damaged")
        tags[code] = field[:length] if code in _TEXTS else struct.unpack_from(f"{order}{number}{form}", field)
    return tags, following


def _decompressed(chunk: bytes, compression: int, rows: int, in_row: int) -> bytes:
    if compression in _PLAIN:
        return chunk
    if compression in _DEFLATE:
        return _inflated(chunk, rows * in_row)
    entries = [(_WIDTH, in_row), (_HEIGHT, rows), (_BITS, 8), (_COMPRESSION, compression), (_PHOTOMETRIC, 1)]
    entries += [(_STRIPS, 8), (_CHANNELS, 1), (_ROWS, rows), (_STRIP_BYTES, len(chunk))]
    directory = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in entries)
    header = b"II*\0" + struct.pack("<I", 8 + len(chunk))
    as_bytes = header + chunk + struct.pack("<H", len(entries)) + directory + bytes(4)
    with Image.open(BytesIO(as_bytes), formats=("TIFF",)) as image:
        return np.asarray(image).tobytes()


def _inflated(chunk: bytes, size: int | None) -> bytes:
    """Decompress Deflate, at most `size` bytes: a last strip may have more rows than are shown. Raises OSError for
    damage, also for a wrong checksum."""
    inflating = zlib.decompressobj()
    try:
        content = inflating.decompress(chunk, 0 if size is None else size + 1)
    except zlib.error as error:
        raise OSError(str(error)) from None
    if not inflating.eof and (size is None or len(content) <= size):
        raise OSError("its compressed pixels end early")
    return content


def _unpacked(content: np.ndarray, bits: int, samples: int) -> np.ndarray:
    """Unpack rows of samples of 9 to 15 bits: uint16 [rows, samples]."""
    values = np.empty((len(content), samples), np.uint16)
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.int64)
    for row, packed in zip(values, content, strict=True):
        row[:] = np.unpackbits(packed, count=samples * bits).reshape(samples, bits) @ weights
    return values
