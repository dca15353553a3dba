"""Writers of PNG and TIFF files by their specifications, independent of the decoders under test."""

import struct
import zlib
from pathlib import Path

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
