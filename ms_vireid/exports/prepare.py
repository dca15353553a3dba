"""Prepares pictures for an exported graph as the file beside it says, with Pillow and NumPy alone: copy this file."""

import hashlib
import json
import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image

FORMAT = "ms_vireid preparation 1"
STACK = re.compile(r'\AImageJ=.*^images=(?!1\r?$)|\A\{"shape": .*"truncated": true', re.MULTILINE | re.DOTALL)


def load(graph: str | Path) -> dict:
    """Read the preparation beside a graph. Raises ValueError if it belongs to another graph."""
    preparation = json.loads(Path(f"{graph}.json").read_text(encoding="utf-8"))
    if preparation["graph"]["sha256"] != hashlib.sha256(Path(graph).read_bytes()).hexdigest():
        raise ValueError(f"{graph}.json: belongs to another graph; export again")
    return preparation


def prepare(path: str | Path, preparation: dict, modality: str, camera: int | None = None) -> np.ndarray:
    """Prepare a picture: float32 [3, H, W]. camera: its number, if ranges differ by camera. Raises ValueError for one
    that is not covered or of another modality than the graph's, and Pillow's errors for one that cannot be decoded."""
    if preparation["format"] != FORMAT or modality not in preparation["modalities"]:
        raise ValueError(f"modality {modality}: not of this graph, or its preparation is not '{FORMAT}'")
    decode, scale, blend, turn, colour, resize, normalise = preparation["steps"]
    value_range = scale["ranges"].get(f"{modality}/{camera}", scale["ranges"][modality])
    # By its file: of a name, Pillow mixes up a raw TIFF that is to be turned.
    with open(path, "rb") as file, Image.open(file, formats=decode["formats"]) as picture:
        image = eight_bits(picture, value_range, path, scale.get("no_values", ()))
        try:
            orientation = picture.getexif().get(274, 1)  # 1 of a TIFF, which Pillow has turned
        except (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, struct.error):
            orientation = 1  # broken EXIF
    if image.has_transparency_data:
        image = image.convert("RGBA")
        below = Image.new("RGB", image.size, tuple(blend["over"]))
        image = Image.composite(image.convert("RGB"), below, image.getchannel("A"))
    if orientation in range(2, 9):
        image = image.transpose(Image.Transpose[turn["orientations 2 to 8"][orientation - 2]])
    image = image.convert(colour["mode"])
    (width, height), (rows, columns) = image.size, resize["size"]
    height_first = height - rows > max(0, 2 * (width - columns))
    for size in ((width, rows) if height_first else (columns, height), (columns, rows)):
        image = image.resize(size, Image.Resampling[resize["filter"]])
    mean, std = (np.array(normalise[name], np.float32) for name in ("mean", "std"))
    return (np.asarray(image) * (1 / (255 * std)) - mean / std).transpose(2, 0, 1)


def eight_bits(
    image: Image.Image, value_range: list[float] | None, path: str | Path, no_values: list[float] = ()
) -> Image.Image:
    """Decode a picture, and scale gray values of 16 and 32 bits; `no_values` become black. Raises ValueError for what
    Pillow misreads."""
    is_deep, tags = image.mode[0] in "IF", getattr(image, "tag_v2", {})
    right = image.format != "TIFF" or is_right_tiff(image.mode, tags)
    if image.format == "PNG" and ";16" in str(image.tile):
        right = is_deep and "transparency" not in image.info
    several = getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
    if several or not right or (image.mode == "F" and not value_range):
        raise ValueError(f"{path}: not covered by the graph's preparation; save one picture as a gray PNG of 16 bits")
    image.load()
    if not is_deep:
        return image
    values = np.asarray(image).astype(np.float64)  # [H, W]
    low, high = value_range or (0, 65535)
    values = 65535 - values if tags.get(262) == 0 else values
    values[np.isin(values.astype(np.float32), np.array(no_values, np.float32))] = np.nan
    levels = (values - low) * 255 / (high - low)
    return Image.fromarray(np.nan_to_num(levels, nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8))


def is_right_tiff(mode: str, tags: dict) -> bool:
    """Return whether Pillow decodes a TIFF of this mode and tags to the values that it holds."""
    bits, sample_format = max(tags.get(258, (1,))), max(tags.get(339, (1,)))
    photometric, compression = tags.get(262), tags.get(259, 1)
    if tags.get(254, 0) & 5 or STACK.search(str(tags.get(270))):  # a thumbnail or a mask; several pictures
        return False
    if tags.get(266, 1) != 1 or (tags.get(284) == 2 and tags.get(277, 1) > 1):  # reversed bits; separate planes
        return False
    if bits > 8:
        is_swapped = tags.prefix == b"MM" and compression != 1
        is_uint16 = mode.startswith("I;16") and (bits, sample_format) == (16, 1) and photometric in (0, 1)
        return is_uint16 or (mode == "F" and photometric == 1 and not is_swapped)
    if photometric in (3, 6):  # a palette of 16 bits; YCbCr as JPEG
        right = max(tags.get(320, (0,))) > 255 if photometric == 3 else compression == 7
    else:
        right = photometric in (0, 1, 2, 5) and compression != 6
    return right and sample_format == 1
