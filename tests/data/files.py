"""Writers of PNG and TIFF files by their specifications, independent of the decoders under test."""

import struct
import zlib
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

GRAY, RGB, GRAY_ALPHA, RGBA = 0, 2, 4, 6  # channels of a PNG
_FORMS = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}  # TIFF's types


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_png(path: Path, values: np.ndarray, kind: int, further: bytes = b"", filters: bool = False) -> Path:
    """A PNG of 16 bits: values uint16 [H, W, C] or [H, W]. filters: each row as its difference from the one above."""
    height, width = values.shape[:2]
    rows = np.frombuffer(values.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    if filters:
        rows = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.uint8))
    raw = b"".join(bytes([2 * filters]) + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    content = chunk(b"IHDR", header) + further + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def write_tiff(
    path: Path, *pages: tuple[list[bytes], dict[int, list[int]]], order: str = "<", big: bool = False
) -> Path:
    """A TIFF of pages, each its strips or tiles and its tags, all 32-bit numbers but bytes as texts. big: BigTIFF."""
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if big else struct.pack(f"{order}HI", 42, 0)
    link, word = (8, "Q") if big else (4, "I")
    for chunks, tags in pages:
        offsets = []
        for content in chunks:
            offsets.append(len(out))
            out += content
        codes = (324, 325) if 322 in tags else (273, 279)
        tags = tags | dict(zip(codes, (offsets, [len(content) for content in chunks]), strict=True))
        entries = []
        for code, values in sorted(tags.items()):
            kind = 2 if isinstance(values, bytes) else 16 if big and code in codes else 4
            content = struct.pack(f"{order}{len(values)}{_FORMS[kind]}", *values)
            if len(content) > struct.calcsize(word):
                out += bytes(len(out) % 2)
                content, at = struct.pack(f"{order}{word}", len(out)), content
                out += at
            content = content.ljust(struct.calcsize(word), b"\0")
            entries.append(struct.pack(f"{order}HH{word}", code, kind, len(values)) + content)
        out += bytes(len(out) % 2)
        struct.pack_into(f"{order}{word}", out, link, len(out))
        out += struct.pack(f"{order}{'Q' if big else 'H'}", len(entries)) + b"".join(entries)
        link = len(out)
        out += bytes(struct.calcsize(word))
    path.write_bytes(out)
    return path


def tags_of(width: int, height: int, bits: int, channels: int = 1, photometric: int = 1, **further) -> dict:
    """Tags of a page of one strip. further: t339=[3] for tag 339, and so on."""
    tags = {256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [photometric], 277: [channels]}
    return tags | {278: [height]} | {int(name[1:]): values for name, values in further.items()}


def reversed_bits(content: bytes) -> bytes:
    return np.packbits(np.unpackbits(np.frombuffer(content, np.uint8)).reshape(-1, 8)[:, ::-1]).tobytes()


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of samples of these bits, each row from a byte's beginning."""
    rows = values.reshape(len(values), -1, 1).astype(np.int64)
    return np.packbits(((rows >> np.arange(bits)[::-1]) & 1).reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


class TiffKind(NamedTuple):
    """One of the ways in which a TIFF can store pixels."""

    sample: str  # u: unsigned, i: signed, f: floats
    bits: int
    photometric: int
    channels: int
    order: str = "<"
    compression: str = "raw"  # or deflate, or predictor: of differences
    layout: str = "strip"  # or strips, tiles
    planar: int = 1  # 2: channels apart
    fill: int = 1  # 2: bits of a byte from the lowest

    def values(self, height: int, width: int) -> np.ndarray:
        rng, shape = np.random.default_rng(self.bits), (height, width, self.channels)
        if self.sample == "f":
            return (rng.random(shape) * 900 - 300).astype(f"f{self.bits // 8}")
        kind = f"{self.sample}{2 if 8 < self.bits < 16 else max(self.bits, 8) // 8}"
        half = 1 << self.bits - 1
        low, high = (-half, half - 1) if self.sample == "i" else (0, 2 * half - 1)
        return rng.integers(low, high, shape, kind, endpoint=True)

    def write(self, path: Path, values: np.ndarray) -> Path:
        height, width, channels = values.shape
        tags = tags_of(width, height, self.bits, channels, self.photometric, t284=[self.planar], t266=[self.fill])
        tags |= {339: ["_uif".index(self.sample)] * channels, 259: [1 if self.compression == "raw" else 8]}
        if self.compression == "predictor":
            tags[317] = [3 if self.sample == "f" else 2]
        if channels in (2, 4, 5) and self.photometric != 5:
            tags[338] = [2] + [0] * (channels - 4)
        if self.photometric == 3:
            tags[320] = (np.arange(2 ** min(self.bits, 8)) * np.array([[257], [200], [150]])).reshape(-1).tolist()
        if self.photometric == 6:
            tags[530] = [1, 1]  # not subsampled
        chunks = []
        for plane in np.split(values, channels, axis=2) if self.planar == 2 else [values]:
            if self.layout == "tiles":
                tags |= {322: [16], 323: [16]}
                large = np.pad(plane, ((0, -height % 16), (0, -width % 16), (0, 0)))
                parts = [large[y : y + 16, x : x + 16] for y in range(0, height, 16) for x in range(0, width, 16)]
            else:
                tags[278] = [rows := 7 if self.layout == "strips" else height]
                parts = [plane[y : y + rows] for y in range(0, height, rows)]
            chunks += map(self._encode, parts)
        return write_tiff(path, (chunks, tags), order=self.order)

    def _encode(self, part: np.ndarray) -> bytes:
        rows, channels, size = len(part), part.shape[2], part.dtype.itemsize
        if self.compression == "predictor" and self.sample == "f":  # differences of bytes, the highest of all first
            part = part.astype(part.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, -1, size).swapaxes(1, 2)
            part = part.reshape(rows, -1, channels)
        if self.compression == "predictor":
            part = np.diff(part, axis=1, prepend=np.zeros((rows, 1, channels), part.dtype))
        order = part.dtype.newbyteorder(self.order)
        content = packed(part, self.bits) if self.bits % 8 else part.astype(order).tobytes()
        content = content if self.compression == "raw" else zlib.compress(content)
        return reversed_bits(content) if self.fill == 2 else content


def tiff_kinds() -> list[TiffKind]:
    """Every combination that can be written; of those that no Pillow reads, the plainest."""
    rare = {("u", 10), ("u", 14), ("u", 64), ("i", 64), ("f", 16), ("f", 64)}
    samples = [("u", bits) for bits in (2, 4, 8, 10, 12, 14, 16, 32, 64)]
    samples += [("i", bits) for bits in (8, 16, 32, 64)] + [("f", bits) for bits in (16, 32, 64)]
    colours = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 3), (2, 4), (2, 5), (3, 1), (5, 4), (6, 3), (8, 3)]
    stored = [("raw", "strip"), ("raw", "tiles"), ("deflate", "strips"), ("predictor", "tiles")]
    kinds = (
        TiffKind(*sample, *colour, order, *layout, planar, fill)
        for sample, colour, order, layout, planar, fill in product(samples, colours, "<>", stored, (1, 2), (1, 2))
    )
    return [
        kind
        for kind in kinds
        if not (kind.bits % 8 and (kind.compression == "predictor" or kind.layout == "tiles"))
        and not (kind.channels == 1 and kind.planar == 2)
        and not ((kind.sample, kind.bits) in rare and (kind.compression, kind.layout, kind.fill) != ("raw", "strip", 1))
    ]
