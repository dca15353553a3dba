"""Opening and decoding pictures: regular files of a known format and a sensible size."""

import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from ms_vireid.command.errors import InputError, one_line, summary

_log = logging.getLogger(__name__)
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}  # skipped silently
FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "WEBP",
    "TIFF",
)  # whatever the suffix; decoders of other formats run programs or parse more
_EXIF = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # in Pillow's `info`, where it may be
MAX_PIXELS = 100_000_000
_MAX_BYTES = 10 * MAX_PIXELS  # of a file; a pixel has at most eight
_BROKEN = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, Image.DecompressionBombError)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `MAX_PIXELS` is checked here
warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # shown as it is stored, as by viewers


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is left behind for its name: macOS puts `._a.jpg`, no picture, beside `a.jpg`."""
    return name.startswith(".")


def is_picture(name: str, skipped: list[Path], folder: Path) -> bool:
    """Return whether a file is a picture by its suffix. Others are added to `skipped`, except hidden ones and the
    system's own."""
    if is_hidden(name):
        return False
    if os.path.splitext(name)[1].lower() in SUFFIXES:
        return True
    if name.lower() not in _SYSTEM_FILES:
        skipped.append(folder / name)
    return False


def note_skipped(skipped: list[Path], root: Path) -> None:
    """Log one line for the files below `root` that `is_picture` skipped, if any."""
    if skipped:
        names = summary([str(path.relative_to(root)) for path in sorted(skipped)])
        line = f"note: {root}: files skipped, as they are not {', '.join(sorted(SUFFIXES))}: {names}"
        _log.warning("%s", one_line(line))


@contextmanager
def decoding(name: Path | str) -> Iterator[None]:
    """Turn errors in a block that decodes a picture into InputErrors."""
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, Image.UnidentifiedImageError):
            error = f"it is none of {', '.join(FORMATS)}"
        raise InputError(f"{name}: cannot be decoded as a picture ({error}); replace or remove it") from None


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture without decoding it yet. Errors, also in the block, become InputErrors as in `decoding`."""
    with decoding(path):
        if not path.is_file():
            raise OSError("it is not a regular file" if path.exists() else "it does not exist")
        if (size := path.stat().st_size) == 0:
            raise OSError("it is empty")
        if size > _MAX_BYTES:
            raise OSError(f"its {size:,} bytes are more than {_MAX_BYTES:,}")
        # by its file: of a name, Pillow maps a raw TIFF to memory, and mixes up one that is to be turned
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise OSError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
            yield image


def read_pixels(path: Path, gray: bool = False, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Decode a picture as viewers show it: uint8 [H, W, 3], or with `gray` [H, W] if the file has no colours.

    It is turned as its EXIF says, and transparent pixels are shown over gray. value_range: values of 16 or 32 bits that
    become 0 and 255 (default: all of 16 bits). Raises InputError as `open_picture`, and for 32 bits without a range.
    """
    with open_picture(path) as image:
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):  # MPO: a phone's, with more pictures behind
            pixels = _jpeg(image, image.mode if gray else "RGB")
            if pixels is not None:
                return _turned(pixels, _orientation(image))
        return pixels_of(image, gray, value_range)


def pixels_of(image: Image.Image, gray: bool = False, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Do the same for a picture in memory; raises OSError for 32 bits without a range."""
    image.load()  # turns a TIFF, and reads what follows a PNG's pixels
    orientation = _orientation(image)
    if is_deep(image):
        image = Image.fromarray(_scaled(image, value_range))
    elif image.has_transparency_data:
        image = _over_gray(image)
    mode = _base(image) if gray else "RGB"
    return _turned(np.asarray(image if image.mode == mode else image.convert(mode)), orientation)


def is_deep(image: Image.Image) -> bool:
    """Return whether a picture's pixels have 16 or 32 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _scaled(image: Image.Image, value_range: tuple[float, float] | None) -> np.ndarray:
    """Scale pixels of 16 or 32 bits to uint8 [H, W]. Values that are not numbers become 0."""
    if value_range is None:
        if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):  # older Pillow's PNG of 16 bits
            raise OSError("its pixels have 32 bits, and no range of them is known: data.sixteen_bit=[low, high]")
        value_range = (0, 65535)
    low, high = value_range
    levels = (np.asarray(image).astype(np.float64) - low) * 255 / (high - low)
    return np.nan_to_num(levels, nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


def _base(image: Image.Image) -> str:
    return "L" if Image.getmodebase(image.mode) == "L" else "RGB"  # of a palette Pillow says "P"


def _over_gray(image: Image.Image) -> Image.Image:
    base = _base(image)
    image = image.convert(f"{base}A")
    shown = Image.new(base, image.size, "#808080")
    shown.paste(image.convert(base), mask=image.getchannel("A"))
    return shown


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 if there is none that can be read."""
    if _EXIF.isdisjoint(image.info):  # Pillow looks for 20 us longer, a tenth of a JPEG's time
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (*_BROKEN, struct.error):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror pixels, [H, W] or [H, W, 3], that are stored in this orientation."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def _jpeg(image: Image.Image, mode: str) -> np.ndarray | None:
    """Decode a JPEG to the same pixels as Pillow, in half the time; None if it has any flaw."""
    image.fp.seek(0)
    content = image.fp.read()
    try:
        if simplejpeg.decode_jpeg_header(content)[:2] != (image.height, image.width):
            return None
        pixels = simplejpeg.decode_jpeg(content, "GRAY" if mode == "L" else mode)
    except ValueError:
        return None
    return pixels[:, :, 0] if mode == "L" else pixels
