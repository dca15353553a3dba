"""Colours, fonts and files of all figures.

The colours are Okabe and Ito's and, where ten are needed, Paul Tol's muted ones: colour-blind people can tell them
apart, and they differ in lightness. Shapes, letters, dashes, hatches or symbols always repeat what a colour says.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, wraps
from itertools import accumulate
from pathlib import Path
from unicodedata import category, east_asian_width

import matplotlib as mpl
from matplotlib import font_manager as fonts
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ms_vireid.command.errors import first_few, printable
from ms_vireid.command.printing import say
from ms_vireid.files.writing import atomic_write

SUFFIXES = (".png", ".svg")
DPI = 200
LONGEST_NAME, LONGEST_LABEL = 10, 36  # columns of text: below a small picture; of a panel or a legend
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
PANELS_IN_ROW = 3
_CHINESE = (  # fonts; of Noto's collection Matplotlib before 3.11 sees the Japanese one alone
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans CJK JP"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "DengXian"),
    *("PingFang SC", "Hiragino Sans GB", "Heiti SC", "STHeiti", "Arial Unicode MS"),
    *("Noto Serif CJK SC", "Noto Serif CJK JP", "Source Han Serif SC", "SimSun", "Songti SC", "AR PL UMing CN"),
)
_STYLE = {
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
_without_glyph: dict[str, None] = {}  # characters of names since the last figure was saved, in order


def styled(draw: Callable) -> Callable:
    """Have a function draw in the style of all figures."""

    @wraps(draw)
    def drawn(*arguments, **options):
        with mpl.rc_context(_STYLE | {"font.family": list(_families())}):
            return draw(*arguments, **options)

    return drawn


@cache
def _families() -> tuple[str, ...]:
    """The fonts of all text: DejaVu Sans and, for what it lacks, a Chinese one, if there is one."""
    installed = set(fonts.fontManager.get_font_names())
    return "DejaVu Sans", *[name for name in _CHINESE if name in installed][:1]


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure. width, height: inches."""
    return Figure(figsize=(width, height), layout="constrained")


@styled
def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG of 200 dots an inch or an SVG, by the suffix, and say which characters of its names no font has.
    Raises InputError as `atomic_write` does."""
    kind = path.suffix[1:].lower()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    if missing := list(_without_glyph):
        written = f"{ascii(missing[0])[1:-1]}{' and so on' if missing[1:] else ''}"
        install = "; install one, such as Noto CJK (Debian, Ubuntu: apt install fonts-noto-cjk)"
        remedy = f"{install}, and remove Matplotlib's list of fonts in {mpl.get_cachedir()}"
        remedy = remedy if any(map(_is_east_asian, missing)) else ""  # other fonts are not looked for
        say(f"note: no font here has {first_few(missing)}, written as {written}{remedy}")
        _without_glyph.clear()


def shortened(name: str, longest: int = LONGEST_NAME, is_text: bool = False) -> str:
    """Shorten a name to one line of at most `longest` columns by cutting out the middle; a Chinese character takes two.
    Characters without a glyph are escaped, and `save_figure` says so, unless `is_text`: a browser draws text in its own
    fonts."""
    text = printable(name)
    if not is_text:
        missing = dict.fromkeys(one for one in text if ord(one) not in _glyphs())
        _without_glyph.update(missing)
        text = "".join(ascii(one)[1:-1] if one in missing else one for one in text)
    end = (longest - 1) // 2
    cut = f"{_beginning(text, longest - 1 - end)}…{_beginning(text[::-1], end)[::-1]}"
    return text if _beginning(text, longest) == text else cut


def _beginning(text: str, columns: int) -> str:
    ends = accumulate(2 if east_asian_width(one) in "WF" else 1 for one in text)
    return text[: sum(end <= columns for end in ends)]


def _is_east_asian(character: str) -> bool:
    return east_asian_width(character) in "WF" and category(character) != "So"  # which are emoji


@cache
def _glyphs() -> frozenset[int]:
    return frozenset().union(*(fonts.get_font(fonts.findfont(name)).get_charmap() for name in _families()))


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
