"""Decodes JPEG files, and refuses those that libjpeg reports as damaged: it makes something of even a damaged scan."""

import re

import numpy as np
import simplejpeg

_WARNING = re.compile(  # libjpeg goes on after these; its other messages are errors
    "Corrupt JPEG data|Premature end|Inconsistent progression|Invalid SOS|Unknown Adobe|Warning: unknown JFIF"
)
_PADDING = re.compile("Corrupt JPEG data: ([1-5]?[0-9]|6[0-4]) extraneous bytes before marker 0xd9")  # a camera's zeros
_ATTEMPTS = 4
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
        first = words = str(error)
    if not _WARNING.match(first):  # Pillow knows more kinds, or says what is wrong
        return None
    for _ in range(_ATTEMPTS):  # libjpeg stops at the first flaw: harmless ones are mended to look for others
        content = _mended(content, words)
        try:
            simplejpeg.decode_jpeg(content, colours)
        except ValueError as error:
            words = str(error)
        else:
            return None
    raise OSError(first)


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


def _segments(content: bytes):
    """Yield the marker, start and end of each segment's payload; of the scans' data only the headers."""
    at = 2
    while (at := content.find(b"\xff", at)) >= 0 and at + 4 <= len(content):
        marker = content[at + 1]
        if marker == 0xD9:
            return
        if marker in (0, 0xFF, 1) or 0xD0 <= marker <= 0xD8:  # data, fill bytes, markers without a payload
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        yield marker, at + 4, end
        at = end


def _mended(content: bytes, words: str) -> bytes:
    """Take away what costs no pixel: applications' segments, bytes between segments, and a sequential scan's odd
    parameters; also, if libjpeg's words are of these, zeros that pad the scan and a missing end."""
    parts, is_progressive = [_SOI], False
    for marker, start, end in _segments(content):
        if marker == _SOS:
            parts += [content[start - 4 : end - 3], content[end - 3 : end] if is_progressive else bytes([0, 63, 0])]
            break
        is_progressive |= marker == 0xC2
        if not 0xE0 <= marker <= 0xEF:
            parts.append(content[start - 4 : end])
    else:
        return content
    data = content[end:]
    if padding := _PADDING.match(words):
        data = data.replace(bytes(int(padding[1])) + _EOI, _EOI, 1)
    if words.startswith("Premature end of JPEG file") and not data.endswith(_EOI):
        data += _EOI
    return b"".join(parts) + data
