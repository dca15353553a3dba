"""Names of people, runs and labels that mean something to what draws, lays out or prints them: shown as they are."""

import json
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from ms_vireid.command.errors import printable
from ms_vireid.evaluation.metrics_table import format_table
from ms_vireid.search.result import Entry, Hit, SearchResult, as_json, format_result
from ms_vireid.visualization import figure as figure_module
from ms_vireid.visualization.curves import draw_curves
from ms_vireid.visualization.figure import LONGEST_LABEL, save_figure, shortened
from ms_vireid.visualization.ranking import Tile, draw_rows
from ms_vireid.visualization.similarity import Similarities, draw_similarity

NAMES = {  # and how they are shown
    "$x$": "$x$",
    "a$b": "a$b",
    "x^2_{": "x^2_{",
    r"\alpha\frac": r"\alpha\frac",
    "<b>&amp;": "<b>&amp;",
    "100%s {0}": "100%s {0}",
    "_hidden": "_hidden",
    "two\nlines": r"two\nlines",
    "\u202eabc": r"\u202eabc",
    "\x1b[31mred": r"\x1b[31mred",
    "\U0001f9d1": r"\U0001f9d1",  # DejaVu has no glyph for it
    "": "",
}


@pytest.mark.parametrize(("name", "said"), NAMES.items(), ids=map(ascii, NAMES))
def test_figures_show_names_as_they_are(name, said, tmp_path):
    label = shortened(name, LONGEST_LABEL)
    assert label == said
    points = {"total": {"total": [(1, 1.0), (2, 0.5)]}, name or "x": {name: [(1, 1.0)]}}
    pixels = np.zeros((8, 4, 3), np.uint8)
    cosines = np.linspace(0, 1, 20, dtype=np.float32)
    for figure in (
        draw_curves([points, points], [label, "other"]),
        draw_similarity([Similarities(cosines, cosines)], [label]),
        draw_rows([[Tile(pixels, None, label, label), Tile(pixels, True, label)]], 0.62),
    ):
        assert any(said in text for text in texts_of(figure))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save_figure(figure, tmp_path / "a.svg")


def texts_of(figure: Figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize(
    ("names", "drawn", "said"),
    [
        (
            ["李明", "run_李", "王"],
            [r"\u674e\u660e", r"run_\u674e", r"\u738b"],
            r"note: no font here has 李, 明, 王, written as \u674e and so on; install one, such as Noto CJK (",
        ),
        (["\U0001f9d1"], [r"\U0001f9d1"], "note: no font here has \U0001f9d1, written as \\U0001f9d1\n"),
        (["plain"], ["plain"], ""),
    ],
)
def test_a_figure_says_once_which_characters_no_font_has(monkeypatch, tmp_path, capsys, names, drawn, said):
    monkeypatch.setattr(figure_module, "_glyphs", lambda: frozenset(range(0x250)))
    monkeypatch.setattr(figure_module, "_without_glyph", {})
    cosines = Similarities(*2 * [np.linspace(0, 1, 20, dtype=np.float32)])
    labels = [shortened(name, LONGEST_LABEL) for name in names]
    assert labels == drawn
    for expected in (said, ""):  # of the figure with these names, and of the next one
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save_figure(draw_similarity([cosines] * len(labels), labels), tmp_path / "a.png")
        printed = capsys.readouterr().out
        assert printed.startswith(expected)
        assert printed.count("note: ") == bool(expected)


def test_chinese_characters_count_twice(monkeypatch):
    monkeypatch.setattr(figure_module, "_glyphs", lambda: frozenset(range(0xFFFF)))
    assert shortened("李小明王大年", 12) == "李小明王大年"
    assert shortened("李小明王大年") == "李小…大年"
    assert shortened("run_李小明_0001") == "run_…0001"


def test_a_long_name_keeps_both_its_ends():
    assert shortened("a" * 5000 + "7", LONGEST_LABEL) == "a" * 18 + "…" + "a" * 16 + "7"
    assert shortened("person_0012") == "perso…0012"
    assert shortened("person_012") == "person_012"


@pytest.mark.parametrize(("name", "said"), NAMES.items(), ids=map(ascii, NAMES))
def test_tables_are_a_line_a_row_and_json_is_as_it_was(name, said, tmp_path):
    said = printable(name)
    entry = Entry.of(f"cam1/{name}.jpg", tmp_path / name, "infrared", 1, name)
    found = SearchResult(entry, [Hit(entry, 0.5)])
    lines = format_result(found).splitlines()
    assert len(lines) == 3
    assert said in lines[2]
    assert json.loads(json.dumps(as_json(found)))["identity"] == entry.identity
    assert len(format_table({name: {"map": 0.5}}).splitlines()) == 2
