"""The page of report.py in a headless browser, at a desktop's and a phone's width, light and dark.

The browser is Chromium or Chrome on the PATH, or one that `playwright install chromium` or `firefox` has fetched.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Playwright, sync_playwright

from tests.report_run import make_page, trained_run

ON_PATH = ("google-chrome", "google-chrome-stable", "chromium", "chromium-browser", "chrome", "microsoft-edge")
WIDTHS = {"desktop": 1280, "phone": 390}
MIN_CONTRAST, MIN_LINE_CONTRAST = 4.5, 3  # of text and of what else is drawn, WCAG 2 AA
MIN_TABLE_FONT = 12  # pixels

# Every element that holds text of its own, with its colour and the one behind it, as [r, g, b].
TEXTS = """() => {
  const rgb = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour.slice(0, 3);
    }
  };
  return [...document.body.querySelectorAll("*")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.checkVisibility())
    .filter((e) => !["STYLE", "TITLE"].includes(e.tagName))
    .map((e) => {
      const style = getComputedStyle(e), colour = e.closest("svg") ? style.fill : style.color;
      return [e.textContent.trim().slice(0, 40), rgb(colour).slice(0, 3), behind(e)];
    });
}"""
# Cells of tables: text, size of the font, and how far they go beyond the window or are cut off, in pixels.
CELLS = """() => [...document.querySelectorAll("th, td, caption")].filter((e) => e.checkVisibility()).map((e) => [
  e.textContent.trim(), parseFloat(getComputedStyle(e).fontSize),
  Math.max(e.getBoundingClientRect().right - innerWidth, -e.getBoundingClientRect().left,
           e.scrollWidth - e.clientWidth - 1)])"""
# Texts of drawings: how far they go beyond their drawing, as a share of its width.
DRAWN = """() => [...document.querySelectorAll("svg text")].map((e) => {
  const box = e.closest("svg").getBoundingClientRect(), own = e.getBoundingClientRect();
  return [e.textContent, Math.max(box.left - own.left, own.right - box.right) / box.width];
})"""
# Colours of the lines of drawings, but for grid lines, which have the page's colour of rules.
LINES = """() => {
  const rule = getComputedStyle(document.querySelector(".scroll")).borderTopColor;
  const strokes = [...document.querySelectorAll("svg path, svg use")].map((e) => getComputedStyle(e).stroke);
  const colours = [...new Set(strokes)].filter((c) => c.startsWith("rgb") && c !== rule);
  return colours.map((c) => c.match(/[0-9.]+/g).map(Number));
}"""


def _launch(playwright: Playwright):
    """A browser, if this machine has one."""
    for path in filter(None, map(shutil.which, ON_PATH)):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:  # no mere stand-in
            return playwright.chromium.launch(executable_path=path)
    for kind in (playwright.chromium, playwright.firefox):
        if Path(kind.executable_path).exists():
            return kind.launch()
    return None


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = _launch(playwright)
        if browser is None:
            pytest.skip(f"no browser: none of {', '.join(ON_PATH)} runs, and playwright has none")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = trained_run(tmp_path_factory.mktemp("report"))
    make_page(folder)
    return folder / "report.html"


@pytest.fixture(scope="module", params=[(w, s) for w in WIDTHS for s in ("light", "dark")], ids="-".join)
def opened(request, browser, page_file):
    """The page, and what the browser had to say or to fetch."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": WIDTHS[width], "height": 800}, color_scheme=scheme)
    said = []
    page.on("console", lambda message: said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda r: said.append(f"request: {r.url}") if not r.url.startswith("data:") else None)
    page.goto(page_file.as_uri())
    yield page, said, scheme
    page.close()


def luminance(colour) -> float:
    """Relative luminance of sRGB 0..255, as WCAG defines it."""
    share = np.array(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one, other) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_console_is_silent_and_nothing_else_is_fetched(opened, page_file):
    _, said, _ = opened
    assert said == [f"request: {page_file.as_uri()}"]


def test_the_page_is_not_wider_than_the_window(opened):
    width, window = opened[0].evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert width <= window


def test_tables_are_readable(opened):
    cells = opened[0].evaluate(CELLS)
    assert len(cells) > 30
    assert [text for text, font, _ in cells if font < MIN_TABLE_FONT] == []
    assert [text for text, _, beyond in cells if beyond > 0] == []


def test_the_texts_of_drawings_are_within_them(opened):
    texts = opened[0].evaluate(DRAWN)
    assert len(texts) > 50
    assert [text for text, beyond in texts if beyond > 0.01] == []


def test_text_and_lines_stand_out_from_what_is_behind_them(opened):
    page, _, scheme = opened
    texts = page.evaluate(TEXTS)
    assert len(texts) > 100
    assert (luminance(texts[0][2]) < 0.1) == (scheme == "dark")
    assert [text for text, colour, behind in texts if contrast(colour, behind) < MIN_CONTRAST] == []
    lines = page.evaluate(LINES)
    assert len(lines) >= 4  # axes, curves, both distributions
    assert [colour for colour in lines if contrast(colour, texts[0][2]) < MIN_LINE_CONTRAST] == []
