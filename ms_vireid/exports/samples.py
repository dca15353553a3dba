"""Procedural pictures in many kinds of files, to prove a graph and its preparation with."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ms_vireid.data.synthetic.cameras import Camera, render
from ms_vireid.data.synthetic.people import draw_identity

ORIENTATION, PHOTOMETRIC = 274, 262  # tags of EXIF and TIFF
CAMERAS = {"visible": 1, "infrared": 3}


def draw(number: int, modality: str, size: tuple[int, int]) -> Image.Image:
    """Draw a person; size is (H, W)."""
    return render(draw_identity(0, 1 + number), Camera(0, CAMERAS[modality], size), np.random.default_rng(number))


def write_samples(folder: Path, preparation: dict) -> Iterator[tuple[Path, str, int]]:
    """Write a person in many kinds of files, for each range; yield path, modality and camera (-1: none)."""
    _, scale, *_, resize, _ = preparation["steps"]
    height, width = resize["size"]
    for number, (key, value_range) in enumerate(scale["ranges"].items()):
        modality, _, camera = key.partition("/")
        picture = draw(number, modality, (2 * height + 9, width + 3)).convert("RGB")
        low, high = value_range or (0, 65535)
        values = low + (np.asarray(picture.convert("L"), np.float64) / 255 * 1.2 - 0.1) * (high - low)  # beyond both
        counts = Image.fromarray(values.clip(0, 65535).astype(np.uint16))
        files = {"16 bits.png": (counts, {ORIENTATION: 5})}  # with their tags
        files["white is 0.tif"] = counts, {ORIENTATION: 8, PHOTOMETRIC: 0}
        if value_range:
            files["float.tif"] = Image.fromarray(values.astype(np.float32)), {ORIENTATION: 7}
        if not camera:
            palette = picture.quantize(32)
            palette.info["transparency"] = 3
            rgba = Image.merge("RGBA", (*picture.split(), picture.getchannel("G")))
            files |= {"colour.jpg": (picture, {ORIENTATION: 6}), "gray.png": (picture.convert("L"), {})}
            files |= {"alpha.png": (rgba, {}), "palette.png": (palette, {})}
        for name, (image, tags) in files.items():
            path, exif = folder / f"{modality} {camera}{name}", Image.Exif()
            exif.update(tags)
            image.save(path, exif=exif)
            yield path, modality, int(camera or -1)
