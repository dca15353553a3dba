"""Pictures inside an HTML page: photographs as JPEG data URIs, figures as SVG in the page's colours."""

import base64
import io
import re
import warnings

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image

from ms_vireid.visualization.figure import styled

WIDEST = 128  # pixels of a photograph
JPEG_QUALITY = 80
FONT = "system-ui, sans-serif"
# Matplotlib's blacks and grays follow the page, light or dark; --line is the page's colour of rules.
PAGE_COLOURS = {"#000000": "currentColor", "#4c4c4c": "currentColor", "#e6e6e6": "var(--line)"}


def photograph(pixels: np.ndarray) -> str:
    """Encode a picture, uint8 [H, W, 3], as a data URI, at most `WIDEST` pixels wide."""
    image = Image.fromarray(pixels)
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


@styled
def drawing(figure: Figure, name: str, description: str) -> Markup:
    """Make an `<svg>` element as wide as its container, with text as text. name: the prefix that makes ids unique."""
    content = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser's fonts draw it
        figure.savefig(content, format="svg", transparent=True, metadata=nothing)
    text = content.getvalue()
    box = re.search(r'viewBox="([^"]+)"', text)[1]
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", FONT, body).replace("xlink:href", "href")
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", body)
    for drawn, shown in PAGE_COLOURS.items():
        body = body.replace(drawn, shown)
    return Markup(f'<svg viewBox="{box}" role="img" aria-label="{escape(description)}">{body}')
