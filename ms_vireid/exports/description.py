"""How pictures are prepared for a graph, as data that `prepare.py` carries out, and files to prove it with."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ms_vireid.command.running import project_version
from ms_vireid.config import Config
from ms_vireid.data.pictures import FORMATS
from ms_vireid.data.synthetic.cameras import Camera, render
from ms_vireid.data.synthetic.people import draw_identity
from ms_vireid.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ms_vireid.exports.prepare import FORMAT

ORIENTATION, PHOTOMETRIC = 274, 262  # tags of EXIF and TIFF
MARK = b'"producer": "ms_vireid'  # in every file of a preparation
CAMERAS = {"visible": 1, "infrared": 3}  # of the procedural pictures
TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
NOT_COVERED = (
    "more than 8 bits, except one channel as a PNG of 16 bits without a transparent value, a TIFF of unsigned 16 bits, "
    "or, with a range, a TIFF of float32 that has black as 0 and is not both big-endian and compressed",
    "TIFF: signed 8 bits, reversed bits, Lab, YCbCr without JPEG, palettes of 8 bits, separate planes, "
    "several pictures, thumbnails, masks",
    "what ms_vireid refuses as damaged",
)


def describe(config: Config, modalities: tuple[str, ...]) -> dict:
    """Describe the steps from a file to the graph's input, in their order."""
    known = config.data.value_ranges.ranges
    named = known if isinstance(known, dict) else dict.fromkeys(modalities, known)
    ranges = dict.fromkeys(modalities) | {key: ends for key, ends in named.items() if key.split("/")[0] in modalities}
    mean, std = ([round(float(value), 6) for value in values] for values in (IMAGENET_MEAN, IMAGENET_STD))
    scaled = "floor((value - low) * 255 / (high - low)) from 0 to 255; NaN: 0; if white is 0, of 65535 - value"
    chosen = "modality/camera, else modality; null: 0 to 65535 of 16 bits"
    converted = "palettes, CMYK ... as Pillow; gray gets three equal channels; both modalities keep their colours"
    passes = "antialiased, each rounded to 8 bits; the height first if height - H > max(0, 2 * (width - W)), else last"
    steps = (
        {"step": "decode", "formats": FORMATS},
        {"step": "scale", "of": "gray of more than 8 bits", "ranges": ranges, "range": chosen, "formula": scaled},
        {"step": "blend", "of": "alpha, or a transparent value", "over": (128, 128, 128)},
        {"step": "turn", "by": "orientation in EXIF, if not broken, or in TIFF", "orientations 2 to 8": TURNS},
        {"step": "colour", "mode": "RGB", "what": converted},
        {"step": "resize", "size": config.data.image_size, "filter": "LANCZOS", "passes": passes},
        {"step": "normalise", "mean": mean, "std": std, "formula": "(pixel / 255 - mean) / std", "layout": "CHW"},
    )
    about = {"format": FORMAT, "producer": f"ms_vireid {project_version()}", "modalities": modalities}
    return about | {"steps": steps, "not_covered": NOT_COVERED}


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
