"""Queries with what was found for them, as one picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ms_vireid.command.errors import InputError
from ms_vireid.data.transforms import load_image
from ms_vireid.search.found import Entry, Found
from ms_vireid.visualization.figure import RIGHT, WRONG, new_figure, show_picture, styled
from ms_vireid.visualization.ranked import SHOWN, frame

_SIZE = (192, 96)  # pixels, height and width, of each picture
_SIDE = 0.72  # inches, of a column
_BELOW = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "va": "top"}
_UNKNOWN_COLOUR = "#444444"


@styled
def draw_sheet(found: Sequence[Found]) -> tuple[Figure, int]:
    """A row for each query: itself, then its first ten hits with similarity, camera and identity.

    Where identities are known, a right one has a thick green frame and a tick, a wrong one a thin red frame and a
    cross. In place of a picture that is not there, or broken, there is a gray field; their number is returned as well.
    """
    columns = min(SHOWN, max((len(one.hits) for one in found), default=0))
    height = _SIDE * _SIZE[0] / _SIZE[1] + 0.3
    figure = new_figure((columns + 1.5) * _SIDE, len(found) * height + 0.2)
    grid = figure.subplots(len(found), columns + 2, squeeze=False, width_ratios=[1.0, 0.15, *[1.0] * columns])
    absent = set()
    for row, (axes, one) in enumerate(zip(grid, found, strict=True)):
        for empty in axes:
            empty.set_axis_off()
        _show(axes[0], one.query, "query" if row == 0 else "", absent)
        _label(axes[0], one.query.modality, one.query, _UNKNOWN_COLOUR)
        for rank, hit in enumerate(one.hits[:columns]):
            place = axes[2 + rank]
            _show(place, hit.entry, f"{rank + 1}" if row == 0 else "", absent)
            match = one.match(hit)
            if match is not None:
                place.add_patch(frame(_SIZE, match))
            symbol, colour = {True: ("✓ ", RIGHT), False: ("✗ ", WRONG), None: ("", _UNKNOWN_COLOUR)}[match]
            _label(place, f"{symbol}{hit.similarity:.2f}", hit.entry, colour)
    return figure, len(absent)


def _show(axes, entry: Entry, title: str, absent: set) -> None:
    axes.set_axis_on()
    try:
        pixels = load_image(entry.file, _SIZE)
    except InputError:
        absent.add(entry.file)
        pixels = np.full((*_SIZE, 3), 224, np.uint8)
    show_picture(axes, pixels, title)
    if entry.file in absent:
        axes.text(_SIZE[1] / 2, _SIZE[0] / 2, "picture\nnot there", ha="center", va="center", fontsize=6)


def _label(axes, first: str, entry: Entry, colour: str) -> None:
    """Two lines below a picture: `first`, and its camera and identity as far as known."""
    axes.annotate(first, (0.5, 0), (0, -4), color=colour, fontsize=7, fontweight="bold", **_BELOW)
    about = (("cam", entry.camera), ("id", entry.identity))
    known = " ".join(f"{name} {number}" for name, number in about if number is not None)
    axes.annotate(known, (0.5, 0), (0, -13), fontsize=6, **_BELOW)
