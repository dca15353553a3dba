"""Decodes JPEG files, and refuses those that libjpeg reports as damaged: it makes something of even a damaged scan."""

import re

import numpy as np
import simplejpeg

_WARNING = re.compile(  # libjpeg goes on after these; its other messages are errors
    "Corrupt JPEG data|Premature end|Inconsistent progression|Invalid SOS|Unknown Adobe|Warning: unknown JFIF"
)
_EXTRANEOUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x(..)")
_NO_PIXELS = re.compile("Corrupt JPEG data: bad ICC|Invalid SOS|Unknown Adobe|Warning: unknown JFIF")
_MOST_PADDING = 64  # bytes of 0 that a camera's encoder may append to a scan
_ATTEMPTS = 10
_MOST_SCANS = 64  # encoders make 10, optimisers up to 30
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # no data, no fill bytes, and with a payload, or the end's
SCAN = b"\xff\xda"  # how the header of a scan begins
_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
_FRAMES = {0xC0, 0xC1, 0xC2}  # headers of sequential and progressive pictures


def decode(content: bytes, colours: str) -> np.ndarray | None:
    """Decode to the same pixels as Pillow, in half the time: uint8 [H, W, C]. colours: "RGB", "GRAY" or "CMYK".

    Returns None if Pillow has to decode it: a rare kind, or a flaw that costs no pixel, such as bytes of 0 that pad
    the scan. Raises OSError, with libjpeg's words, if pixels are lost.
    """
    try:
        return simplejpeg.decode_jpeg(content, colours)
    except ValueError as error:
        if _loses_pixels(str(error), content, colours):
            raise OSError(str(error)) from None
    return None


def require_few_scans(content: bytes) -> None:
    """Raise OSError if a picture has so many scans that it takes far longer to decode than its pixels need: a scan of
    a few bytes goes through all of them."""
    if content.count(SCAN) > _MOST_SCANS:  # also of thumbnails
        scans = sum(marker == _SOS for marker, _, _ in _segments(content))
        if scans > _MOST_SCANS:
            raise OSError(f"its {scans:,} scans are more than {_MOST_SCANS}")


def require_all_scans(content: bytes) -> None:
    """Raise OSError if a picture of several scans, as progressive ones are, was closed before the last of them."""
    missing: set[tuple[int, int]] = set()  # component and coefficient
    for marker, start, end in _segments(content):
        segment = content[start:end]
        if marker in _FRAMES and not missing:
            missing = {(segment[6 + 3 * i], k) for i in range(segment[5]) for k in range(64)}
        elif marker == _SOS and segment:
            first, last, low_bit = segment[-3], segment[-2], segment[-1] & 15
            if not low_bit:  # the last bits of these coefficients
                components = segment[1 : 1 + 2 * segment[0] : 2]
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
    if missing:
        raise OSError("Its last scans are missing")


def _loses_pixels(words: str, content: bytes, colours: str) -> bool:
    """Whether a flaw costs pixels. libjpeg stops at the first: a harmless one is mended to look for others."""
    for _ in range(_ATTEMPTS):
        if not _WARNING.match(words):
            return False  # Pillow knows more kinds, or says what is wrong
        mended = _mended(words, content)
        if mended is None:
            return True
        try:
            simplejpeg.decode_jpeg(content := mended, colours)
        except ValueError as error:
            words = str(error)
        else:
            return False
    return True


def _mended(words: str, content: bytes) -> bytes | None:
    """Take away what libjpeg warns of if it is harmless, else return None."""
    if words.startswith("Premature end of JPEG file"):
        return None if content.endswith(_EOI) else content + _EOI  # perhaps this alone is missing
    if _NO_PIXELS.match(words):
        return _bare(content)
    if not (extraneous := _EXTRANEOUS.match(words)):
        return None
    count, marker = int(extraneous[1]), bytes([0xFF, int(extraneous[2], 16)])
    if (stray := _stray_bytes(content, count)) is not None:
        return content[:stray] + content[stray + count :]
    padded = content.find(bytes(count) + marker) if marker == _EOI and count <= _MOST_PADDING else -1
    return None if padded < 0 else content[:padded] + content[padded + count :]


def _segments(content: bytes):
    """Yield the marker, start and end of each segment's payload; of the scans' data only the headers."""
    at = 2
    while (found := _MARKER.search(content, at)) and (start := found.end() + 2) <= len(content):
        if found[0] == _EOI:
            return
        at = found.end() + int.from_bytes(content[found.end() : start], "big")
        yield found[0][1], start, at


def _stray_bytes(content: bytes, count: int) -> int | None:
    """Find `count` bytes between two segments of the header."""
    behind = 2
    for marker, start, end in _segments(content):
        if start - 4 - behind == count:
            return behind
        if marker == _SOS:
            return None
        behind = end
    return None


def _bare(content: bytes) -> bytes:
    """Leave out what applications wrote, and write the scan's parameters as a sequential picture has them."""
    parts, header = [_SOI], b""
    for marker, start, end in _segments(content):
        if marker == _SOS:
            header = content[start - 4 : end]
            parts += [header[:-3], bytes([0, 63, 0]) if b"\xff\xc2" not in content[:start] else header[-3:]]
            return b"".join(parts) + content[end:]
        if not 0xE0 <= marker <= 0xEF:
            parts.append(content[start - 4 : end])
    return content
