"""Colours, fonts and files of all figures.

The colours are Okabe and Ito's and, where ten are needed, Paul Tol's muted ones: colour-blind people can tell them
apart, and they differ in lightness. Shapes, letters, dashes, hatches or symbols always repeat what a colour says.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager as fonts
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ms_vireid.command.errors import printable
from ms_vireid.files.writing import atomic_write

SUFFIXES = (".png", ".svg")
DPI = 200
LONGEST_NAME, LONGEST_LABEL = 10, 40  # characters: below a small picture; of a panel or a legend
MARKERS = {"visible": "o", "infrared": "^", "auxiliary": "s"}
RIGHT, WRONG = "#009E73", "#D55E00"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SERIES_MARKERS = ("o", "^", "s", "D", "v", "P")
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
IDENTITIES = (
    *("#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE"),
    *("#882255", "#44AA99", "#999933", "#AA4499", "#777777"),
)
HEAT = "inferno"  # its lightness rises evenly, so that it prints in gray
_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Microsoft YaHei")
_FONTS += ("SimHei", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS")  # with Chinese, where one is installed
FAMILY = ["DejaVu Sans", *[name for name in _FONTS if name in fonts.fontManager.get_font_names()]]
styled = mpl.rc_context(
    {
        "font.family": FAMILY,
        "text.parse_math": False,  # a $ in a name is a $
        "font.size": 8,
        "axes.titlesize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.5,
        "hatch.linewidth": 0.5,
        "svg.hashsalt": "ms_vireid",  # the same figure gives the same bytes
    }
)


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure. width, height: inches."""
    return Figure(figsize=(width, height), layout="constrained")


@styled
def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG of 200 dots an inch or an SVG, by the suffix. Raises InputError as `atomic_write` does."""
    kind = path.suffix[1:].lower()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)


def shortened(name: str, longest: int = LONGEST_NAME, is_text: bool = False) -> str:
    """Shorten a name to one line of at most `longest` characters by cutting out the middle. Characters without a glyph
    are escaped unless `is_text`: a browser draws text in its own fonts."""
    text = printable(name)
    if not is_text:
        text = "".join(one if ord(one) in _glyphs() else ascii(one)[1:-1] for one in text)
    end = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[: longest - 1 - end]}…{text[-end:]}"


@cache
def _glyphs() -> frozenset[int]:
    return frozenset().union(*(fonts.get_font(fonts.findfont(name)).get_charmap() for name in FAMILY))


def show_picture(axes, pixels, title: str = "", **options) -> AxesImage:
    """Show a picture or a map without ticks and frame."""
    image = axes.imshow(pixels, **options)
    axes.set(title=title, xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def add_legend(figure: Figure, handles: Sequence, most_a_line: int) -> None:
    """Add a legend below all panels, in as few lines as fit the figure's width, and make the figure higher by them."""
    for entries in range(most_a_line, 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=entries)
        if entries == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(handles) / entries))


def add_bar(figure: Figure, image, label: str, ends: tuple[str, str], **options) -> None:
    """Add a colour bar beside all panels, with words at its ends."""
    bar = figure.colorbar(image, ax=figure.axes, pad=0.02, **options)
    bar.set_ticks([image.norm.vmin, image.norm.vmax], labels=ends)
    bar.set_label(label)
    bar.outline.set_visible(False)
