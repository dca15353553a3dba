"""Contact sheets: queries and their hits as one picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ms_vireid.command.errors import InputError
from ms_vireid.config.schema import FULL, ValueRanges
from ms_vireid.data.transforms import load_image
from ms_vireid.search.result import Entry, SearchResult
from ms_vireid.visualization.figure import Figure, shortened
from ms_vireid.visualization.ranking import SHOWN, Tile, draw_rows

_SIZE = (192, 96)  # pixels, height and width, of each picture


def draw_sheet(found: Sequence[SearchResult], value_ranges: ValueRanges = FULL) -> tuple[Figure, int]:
    """Draw a row for each query: itself, then its first ten hits with similarity, camera and identity, marked right or
    wrong where identities are known. Gray fields replace pictures that are missing or broken. value_ranges: of pictures
    of 16 or 32 bits.

    Returns the figure and the number of these pictures.
    """
    missing: set = set()
    rows = []
    for one in found:
        shown = [(one.query, None, one.query.modality)]
        shown += [(hit.entry, one.match(hit), f"{hit.similarity:.2f}") for hit in one.hits[:SHOWN]]
        rows.append([_tile(*tile, missing, value_ranges) for tile in shown])
    return draw_rows(rows, 0.72), len(missing)


def _tile(entry: Entry, right: bool | None, text: str, missing: set, value_ranges: ValueRanges) -> Tile:
    try:
        value_range = value_ranges.of(entry.modality == "infrared", entry.camera)
        pixels = load_image(entry.file, _SIZE, None, value_range)
    except InputError:
        missing.add(entry.file)
        field = Image.new("RGB", _SIZE[::-1], (224, 224, 224))
        middle = _SIZE[1] // 2, _SIZE[0] // 2
        ImageDraw.Draw(field).text(middle, "picture\nnot there", "black", anchor="mm", align="center", font_size=16)
        pixels = np.asarray(field)
    about = (("cam", entry.camera), ("id", entry.identity and shortened(entry.identity)))
    return Tile(pixels, right, text, " ".join(f"{what} {name}" for what, name in about if name is not None))
