"""Opening picture files: regular files of a known format and a sensible size."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from ms_vireid.command.errors import InputError, one_line, summary

_log = logging.getLogger(__name__)
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_LEFT_BEHIND = {"thumbs.db", "desktop.ini"}  # by systems, as are names that begin with a dot: not worth a word
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # opened whatever the suffix; decoders of others start or parse more
MOST_PIXELS = 100_000_000
_MOST_BYTES = 10 * MOST_PIXELS  # of a file; a pixel has eight at most
_BROKEN = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, Image.DecompressionBombError)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `MOST_PIXELS` are checked


def is_picture(name: str, skipped: list[Path], folder: Path) -> bool:
    """Whether a file is one by its suffix; what is not, and might be missed, is added to `skipped`."""
    if os.path.splitext(name)[1].lower() in SUFFIXES:
        return True
    if not name.startswith(".") and name.lower() not in _LEFT_BEHIND:
        skipped.append(folder / name)
    return False


def note_skipped(skipped: list[Path], root: Path) -> None:
    """One line for the files below `root` that `is_picture` has skipped, if any."""
    if skipped:
        names = summary([str(path.relative_to(root)) for path in sorted(skipped)])
        line = f"note: {root}: files skipped, as they are not {', '.join(sorted(SUFFIXES))}: {names}"
        _log.warning("%s", one_line(line))


@contextmanager
def decoding(name: Path | str) -> Iterator[None]:
    """A block that decodes the picture of that name: an error becomes an InputError."""
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, Image.UnidentifiedImageError):
            error = f"it is none of {', '.join(FORMATS)}"
        raise InputError(f"{name}: cannot be decoded as a picture ({error}); replace or remove it") from None


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """The picture in a file, not decoded yet. An error, in the block too, is as of `decoding`."""
    with decoding(path):
        if not path.is_file():
            raise OSError("it is not a regular file" if path.exists() else "it does not exist")
        if (size := path.stat().st_size) == 0:
            raise OSError("it is empty")
        if size > _MOST_BYTES:
            raise OSError(f"its {size:,} bytes are more than {_MOST_BYTES:,}")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise OSError(f"{image.width}x{image.height} pixels are more than {MOST_PIXELS:,}")
            yield image


def read_pixels(path: Path, gray: bool = False) -> np.ndarray:
    """A picture as in its file: uint8 [H, W, 3], or with `gray` [H, W] if the file has no colours.

    16 bits are scaled to 8. Raises InputError as `open_picture`, and for 32 bits, whose range is unknown.
    """
    with open_picture(path) as image:
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            pixels = _jpeg(image, image.mode if gray else "RGB")
            if pixels is not None:
                return pixels
        return pixels_of(image, gray)


def pixels_of(image: Image.Image, gray: bool = False) -> np.ndarray:
    """The same of a picture in memory; raises OSError for 32 bits."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))  # 65535 / 255
    elif image.mode in ("I", "F"):
        raise OSError("its pixels have 32 bits: save it with 8 or 16")
    mode = Image.getmodebase(image.mode) if gray else "RGB"  # "L" or "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _jpeg(image: Image.Image, mode: str) -> np.ndarray | None:
    """The pixels that Pillow would decode, in half of its time, or None for what is not a flawless JPEG."""
    image.fp.seek(0)
    content = image.fp.read()
    try:
        if simplejpeg.decode_jpeg_header(content)[:2] != (image.height, image.width):
            return None
        pixels = simplejpeg.decode_jpeg(content, "GRAY" if mode == "L" else mode)
    except ValueError:
        return None
    return pixels[:, :, 0] if mode == "L" else pixels
