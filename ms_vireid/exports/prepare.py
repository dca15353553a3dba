"""Prepares pictures for an exported graph as the file beside it says, with Pillow and NumPy alone: copy this file."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

FORMAT = "ms_vireid preparation 1"
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4  # what a TIFF's samples are
LITTLE_ENDIAN = {(12, UNSIGNED), (16, SIGNED), (32, SIGNED), (32, FLOAT)}  # otherwise Pillow may swap their bytes twice


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
        image = eight_bits(picture, value_range, path)
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


def eight_bits(image: Image.Image, value_range: list[float] | None, path: str | Path) -> Image.Image:
    """Decode a picture, and scale gray values of more than 8 bits. Raises ValueError for what Pillow misreads."""
    tags = getattr(image, "tag_v2", {})
    bits, sample, white_is_zero = max(tags.get(258, (8,))), max(tags.get(339, (UNSIGNED,))), tags.get(262) == 0
    if image.format == "PNG" and ";16" in str(image.tile):
        bits = 16
    several = (getattr(image, "n_frames", 1) > 1 and image.format != "MPO") or tags.get(254, 0) & 5
    is_deep = bits > 8 or sample not in (UNSIGNED, UNDEFINED)
    right = (bits, sample) in LITTLE_ENDIAN and tags.prefix == b"II" and not white_is_zero
    right = image.mode[0] in "IF" and (right or (bits, sample) == (16, UNSIGNED))
    if several or (is_deep and not (right and (value_range or sample == UNSIGNED))):
        raise ValueError(f"{path}: not covered by the graph's preparation; save one picture as a gray PNG of 16 bits")
    image.load()
    if not is_deep:
        return image
    values = np.asarray(image).astype(np.float64)  # [H, W]
    low, high = value_range or (0, 2**bits - 1)
    levels = ((2**bits - 1 - values if white_is_zero else values) - low) * 255 / (high - low)
    shown = Image.fromarray(np.nan_to_num(levels, nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:
        shown.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return shown
