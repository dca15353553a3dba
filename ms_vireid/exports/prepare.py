"""Prepares pictures for an exported graph as the file beside it says, with Pillow and NumPy alone: copy this file."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMAT = "ms_vireid preparation 1"
NOT_COVERED = "not covered by the graph's preparation; save it as one PNG, of 8 bits, or gray of 16 bits"


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
    try:
        picture = Image.open(path, formats=decode["formats"])
    except UnidentifiedImageError:
        raise ValueError(f"{path}: {NOT_COVERED}") from None
    with picture:
        image = eight_bits(picture, value_range, path)
        try:
            orientation = picture.getexif().get(274, 1)
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
    """Decode a picture, and scale gray values of 16 bits. Raises ValueError for what Pillow would cut to 8 bits."""
    is_deep = image.mode[0] == "I"
    cut = image.format == "PNG" and ";16" in str(image.tile) and not (is_deep and "transparency" not in image.info)
    if cut or (getattr(image, "n_frames", 1) > 1 and image.format != "MPO"):
        raise ValueError(f"{path}: {NOT_COVERED}")
    image.load()
    if not is_deep:
        return image
    low, high = value_range or (0, 65535)
    levels = (np.asarray(image).astype(np.float64) - low) * 255 / (high - low)  # [H, W]
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
