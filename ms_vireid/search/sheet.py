"""Queries with what was found for them, as one picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from ms_vireid.command.errors import InputError
from ms_vireid.data.transforms import load_image
from ms_vireid.search.found import Entry, Found
from ms_vireid.visualization.figure import shortened
from ms_vireid.visualization.ranked import SHOWN, Tile, draw_rows

_SIZE = (192, 96)  # pixels, height and width, of each picture


def draw_sheet(found: Sequence[Found]) -> tuple[Figure, int]:
    """A row for each query: itself, then its first ten hits with similarity, camera and identity, marked right or wrong
    where identities are known. In place of a picture that is missing, or broken, there is a gray field; their number is
    returned as well."""
    absent: set = set()
    rows = []
    for one in found:
        hits = [_tile(hit.entry, one.match(hit), f"{hit.similarity:.2f}", absent) for hit in one.hits[:SHOWN]]
        rows.append([_tile(one.query, None, one.query.modality, absent), *hits])
    return draw_rows(rows, 0.72), len(absent)


def _tile(entry: Entry, right: bool | None, text: str, absent: set) -> Tile:
    try:
        pixels = load_image(entry.file, _SIZE)
    except InputError:
        absent.add(entry.file)
        field = Image.new("RGB", _SIZE[::-1], (224, 224, 224))
        middle = _SIZE[1] // 2, _SIZE[0] // 2
        ImageDraw.Draw(field).text(middle, "picture\nnot there", "black", anchor="mm", align="center", font_size=16)
        pixels = np.asarray(field)
    about = (("cam", entry.camera), ("id", entry.identity and shortened(entry.identity)))
    return Tile(pixels, right, text, " ".join(f"{what} {name}" for what, name in about if name is not None))
