"""Opening and decoding pictures: regular files of a known format and a sensible size."""

import io
import math
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from ms_vireid.command.errors import InputError, summary
from ms_vireid.config.schema import Shown
from ms_vireid.data import jpeg
from ms_vireid.data.pixel_formats import (
    IN_8_BITS,
    UNKNOWN_TIFF,
    UnsupportedPictureError,
    is_high_bit_depth,
    require_whole_tiff,
    require_whole_values,
    to_8_bits,
    values_of,
)
from ms_vireid.files.checks import note
from ms_vireid.files.pointers import ANNEX, pointer

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
# Files and folders that systems and programs make beside pictures, whole names, as their documentation lists them.
_SYSTEM_NAMES = re.compile(
    r"\.(?!\.?$).*"  # macOS' ._a.jpg and .Trashes, Linux' .Trash-1000 and .thumbnails, QNAP's .@__thumb, Git, editors
    r"|@eaDir|@tmp|@share(bin|snap)|@SynologyCloudSync|@ActiveBackup|SYNO[A-Z]+_.+|#(recycle|snapshot)"  # Synology
    r"|@Recycle|@Recently-Snapshot|@Transcode|~snapshot|_NAS_Recycle_.*"  # QNAP, NetApp, Thecus
    r"|\$RECYCLE\.BIN|RECYCLE[DR]|System Volume Information|FOUND\.\d{3}|(eh)?thumbs(_vista)?\.db|desktop\.ini"
    r"|__MACOSX|Icon\r|Network Trash Folder|Temporary Items|The(VolumeSettings|FindByContent)Folder"
    r"|lost\+found|files_(trashbin|versions)|_*thumb(nail)?s?",  # Linux, Nextcloud, galleries
    re.IGNORECASE | re.DOTALL,
)
# Whatever the suffix; decoders of other formats run programs or parse more.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
_EXIF = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # in Pillow's `info`, where it may be
MAX_PIXELS, _MAX_SIDE = 100_000_000, 65_535  # a JPEG's
MAX_BYTES = 10 * MAX_PIXELS  # of a file; a pixel has at most eight
_MAX_RUNS, _MAX_COUNTED = 1 << 24, 32  # pixels of a BMP of runs, which Pillow decodes one by one; pages of a file
_LARGE, _HEADER, _READ = 1 << 18, 1 << 24, 160  # bytes; of a header at most; that each reading counts for besides
_START = 64  # bytes that tell a format or a pointer
_MAGIC = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG", "TIFF": (b"II", b"MM"), "WEBP": b"RIFF", "BMP": b"BM"}
_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_BROKEN = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, struct.error, zlib.error)
_BROKEN += (Image.DecompressionBombError,)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `MAX_PIXELS` is checked here
warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # shown as it is stored, as by viewers


def is_systems(name: str) -> bool:
    """Return whether a file or folder has a name that a system makes: thumbnails, deleted files, notes of a program."""
    return _SYSTEM_NAMES.fullmatch(name) is not None


def is_picture(name: str, skipped: list[Path], folder: Path) -> bool:
    """Return whether a file is a picture by its suffix and no system's. Others are added to `skipped`."""
    if os.path.splitext(name)[1].lower() in SUFFIXES and not is_systems(name):
        return True
    skipped.append(folder / name)
    return False


def note_skipped(skipped: list[Path], root: Path) -> None:
    """Log a line for the files and folders of systems among those skipped below `root`, and one for the others."""
    names = {True: [], False: []}
    for path in sorted(skipped):
        names[is_systems(path.name)].append(str(path.relative_to(root)))
    if names[True]:
        remedy = "rename what is the people's"
        note(root, f"left out, as systems make files and folders of such names: {summary(names[True])}; {remedy}")
    if names[False]:
        note(root, f"files skipped, as they are not {', '.join(sorted(SUFFIXES))}: {summary(names[False])}")


class BrokenPictureError(InputError):
    """A picture cannot be used. reason: why. remedy: what to do. damaged: it cannot be decoded."""

    def __init__(self, message: str, reason: str = "", remedy: str = "", damaged: bool = True):
        super().__init__(message)
        self.reason, self.remedy, self.damaged = reason, remedy, damaged


@contextmanager
def decoding(name: Path | str) -> Iterator[None]:
    """Turn errors in a block that decodes a picture into BrokenPictureErrors."""
    try:
        yield
    except _BROKEN as error:
        reason, damaged = str(error), not isinstance(error, UnsupportedPictureError)
        remedy = "replace or remove it" if damaged else error.remedy
        said = f"cannot be decoded as a picture ({reason})" if damaged else reason
        raise BrokenPictureError(f"{name}: {said}; {remedy}", reason, remedy, damaged) from None


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture without decoding it yet. Errors, also in the block, are raised as in `decoding`."""
    with decoding(path):
        try:
            status = path.stat()
        except FileNotFoundError:
            if path.is_symlink() and ANNEX in os.readlink(path).replace("\\", "/"):
                raise UnsupportedPictureError(*pointer(ANNEX.encode())) from None
            raise OSError("it does not exist") from None
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        if not status.st_size:
            raise OSError("it is empty")
        if status.st_size > MAX_BYTES:
            raise OSError(f"its {status.st_size:,} bytes are more than {MAX_BYTES:,}")
        # by its file: of a name, Pillow maps a raw TIFF to memory, and mixes up one that is to be turned
        large = status.st_size > _LARGE
        with _Frugal(io.FileIO(path)) if large else path.open("rb") as file:
            yield _opened(file, status.st_size)


class _Frugal(io.BufferedReader):
    """A large file. Of a small one, nothing that Pillow reads takes long. left: bytes that may be read."""

    left = math.inf

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.left -= len(content) + _READ
        if self.left < 0:
            raise OSError("it has far more parts than a picture")
        return content


def _opened(file: BinaryIO, size: int) -> Image.Image:
    start = file.read(_START)
    file.seek(0)
    is_jpeg = start.startswith(_MAGIC["JPEG"])
    file.left = _HEADER if is_jpeg else _HEADER + 4 * size
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise _unknown(start) from None
    if image.width * image.height > MAX_PIXELS:
        raise OSError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
    if max(image.size) > _MAX_SIDE:
        raise OSError(f"it is {image.width}x{image.height} pixels; a side has at most {_MAX_SIDE:,}")
    if image.format == "JPEG":
        file.left = math.inf
        return image
    if image.tile and image.tile[0][0] == "bmp_rle" and image.width * image.height > _MAX_RUNS:
        raise UnsupportedPictureError(f"is a BMP of runs with more than {_MAX_RUNS:,} pixels", IN_8_BITS)
    if (count := _frames(image)) > 1:
        raise UnsupportedPictureError.several(f"{count:,}" if count < _MAX_COUNTED else f"{_MAX_COUNTED:,} or more")
    if image.format in ("MPO", "BMP"):  # whose pixels are read at once, or byte by byte
        file.left = math.inf
    require_whole_values(image)
    if image.format == "TIFF":
        require_whole_tiff(image)
    return image


def _unknown(start: bytes) -> OSError:
    """The error about a file that is no picture, by its first bytes."""
    if found := pointer(start):
        return UnsupportedPictureError(*found)
    for name, magic in _MAGIC.items():
        if start.startswith(magic):
            kind = f"an unsupported kind of {name}"
            if name == "TIFF":
                return UnsupportedPictureError(f"has a damaged header, or is {kind}", UNKNOWN_TIFF)
            return OSError(f"its header is damaged, or it is {kind}")
    return OSError(f"it is none of {', '.join(FORMATS)}")


def _frames(image: Image.Image) -> int:
    """Count the pictures in a file, at most `_MAX_COUNTED`. Previews and gain maps of a phone's MPO, which are smaller,
    do not count."""
    if image.format == "TIFF":  # whose pages Pillow counts ever more slowly
        count = 1
        with suppress(EOFError):
            while count < _MAX_COUNTED:
                image.seek(count)
                count += 1
        image.seek(0)
        return count
    if image.format != "MPO":
        return getattr(image, "n_frames", 1)
    whole, kinds = image.size, [entry["Attribute"]["MPType"] for entry in image.mpinfo[0xB002]]
    count = 1 if len(kinds) < _MAX_COUNTED else _MAX_COUNTED
    for number, kind in enumerate(kinds[1:], 1) if count == 1 else ():
        try:
            image.seek(number)
        except _BROKEN:  # taken away, as some programs do with what lies behind the first
            continue
        count += kind.startswith("Multi-Frame") or (image.size == whole and "Thumbnail" not in kind)
    image.seek(0)
    return count


def read_pixels(path: Path, gray: bool = False, value_range: Shown | None = None) -> np.ndarray:
    """Decode a picture as viewers show it: uint8 [H, W, 3], or with `gray` [H, W] if the file has no colours.

    It is turned as its EXIF says, and transparent pixels are shown over gray. value_range: values of 16 or 32 bits that
    become 0 and 255 (default: all of 16 bits), then those that are no value. Raises BrokenPictureError as
    `open_picture`, and for signed values and 32 bits without a range.
    """
    with open_picture(path) as image:
        if image.format in ("JPEG", "MPO"):  # MPO: a phone's, with previews behind
            pixels = _jpeg(image, gray)
            if pixels is not None:
                return _turned(pixels, _orientation(image))
        return _decoded(image, gray, value_range)


def pixels_of(image: Image.Image, gray: bool = False, value_range: Shown | None = None) -> np.ndarray:
    """Do the same for a picture in memory; raises OSError for what Pillow misreads, and for 32 bits without a range."""
    require_whole_values(image)
    return _decoded(image, gray, value_range)


def _decoded(image: Image.Image, gray: bool, value_range: Shown | None) -> np.ndarray:
    image.load()  # turns a TIFF, and reads what follows a PNG's pixels
    orientation = _orientation(image)
    if is_high_bit_depth(image):
        image = Image.fromarray(to_8_bits(values_of(image), value_range))
    elif image.has_transparency_data:
        image = _over_gray(image)
    mode = _base(image) if gray else "RGB"
    return _turned(np.asarray(image if image.mode == mode else image.convert(mode)), orientation)


def _base(image: Image.Image) -> str:
    return "L" if Image.getmodebase(image.mode) == "L" else "RGB"  # of a palette Pillow says "P"


def _over_gray(image: Image.Image) -> Image.Image:
    base = _base(image)
    if image.mode != f"{base}A":  # a copy of a large picture is large
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
    except _BROKEN:
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


def _jpeg(image: Image.Image, gray: bool) -> np.ndarray | None:
    """Decode a JPEG to the same pixels as Pillow, in half the time; None if only Pillow decodes it. Raises OSError if
    it is damaged."""
    first_scan = image.fp.tell() - 8 - 2 * image.layers  # its header's place if it has all channels
    image.fp.seek(0)
    content = image.fp.read()
    if image.mode not in _COLOURS:
        return None
    colours = _COLOURS[image.mode] if gray or image.mode == "CMYK" else "RGB"
    in_scans = image.info.get("progressive") or content[first_scan : first_scan + 2] != jpeg.SCAN
    if in_scans:
        jpeg.require_few_scans(content)
    pixels = jpeg.decode(content, colours)
    if in_scans:
        jpeg.require_all_scans(content)
    if pixels is None or pixels.shape[:2] != (image.height, image.width) or colours == "CMYK":
        return None
    return pixels[:, :, 0] if colours == "GRAY" else pixels
