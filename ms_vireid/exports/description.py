"""What stands beside a graph: how to prepare its pictures, step by step, for `prepare.py` or a program of one's own."""

from ms_vireid.command.running import project_version
from ms_vireid.config import Config
from ms_vireid.data.pictures import FORMATS
from ms_vireid.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ms_vireid.exports.prepare import FORMAT

MARK = b'"producer": "ms_vireid'  # in every file of a preparation
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
        {"step": "scale", "of": "gray of more than 8 bits", "ranges": ranges, "range": chosen, "formula": scaled}
        | ({"no_values": no_values, "shown": 0} if (no_values := config.data.no_value) else {}),
        {"step": "blend", "of": "alpha, or a transparent value", "over": (128, 128, 128)},
        {"step": "turn", "by": "orientation in EXIF, if not broken, or in TIFF", "orientations 2 to 8": TURNS},
        {"step": "colour", "mode": "RGB", "what": converted},
        {"step": "resize", "size": config.data.image_size, "filter": "LANCZOS", "passes": passes},
        {"step": "normalise", "mean": mean, "std": std, "formula": "(pixel / 255 - mean) / std", "layout": "CHW"},
    )
    about = {"format": FORMAT, "producer": f"ms_vireid {project_version()}", "modalities": modalities}
    return about | {"steps": steps, "not_covered": NOT_COVERED}
