"""The contact sheet: ranks, similarities, cameras, identities, and what is right by colour, frame and symbol."""

import numpy as np
import pytest
from PIL import Image

from ms_vireid.search.result import Entry, Hit, SearchResult, as_json, format_result
from ms_vireid.visualization.figure import RIGHT, WRONG, save_figure
from ms_vireid.visualization.sheet import draw_sheet

from ..data.tree import write_picture


@pytest.fixture
def found(tmp_path):
    """Two queries, the second of unknown identity; the fourth hit's picture is not there."""

    def entry(number, identity, camera=2):
        path = tmp_path / f"{number}.png"
        if number != 4:
            write_picture(path, seed=number)
        return Entry(f"{number}.png", path, "visible", camera, identity)

    hits = [Hit(entry(n, identity), 1 - n / 10) for n, identity in ((1, "7"), (2, "8"), (3, None), (4, "7"))]
    return [SearchResult(entry(0, "7", 3), hits), SearchResult(entry(9, None, None), hits[:2])]


def below(axes):
    return axes.get_xlabel(), axes.xaxis.label.get_color(), axes.texts[0].get_text()


def test_each_hit_has_its_mark_frame_similarity_camera_and_identity(found):
    figure, absent = draw_sheet(found)
    assert absent == 1
    grid = np.array(figure.axes).reshape(2, 6)
    assert [axes.get_title() for axes in grid[0]] == ["query", "", "1", "2", "3", "4"]
    gray = "#444444"
    assert [below(axes) for axes in grid[0, 2:]] == [
        ("✓ 0.90", RIGHT, "cam 2 id 7"),
        ("✗ 0.80", WRONG, "cam 2 id 8"),
        ("0.70", gray, "cam 2"),
        ("✓ 0.60", RIGHT, "cam 2 id 7"),
    ]
    assert [axes.patches[0].get_linewidth() for axes in grid[0, 2:]] == [2.6, 1.4, 0, 2.6]
    assert below(grid[0, 0]) == ("visible", gray, "cam 3 id 7")
    assert below(grid[1, 0]) == ("visible", gray, "")
    assert [bool(axes.images) for axes in grid[1]] == [True, False, True, True, False, False]
    field = np.asarray(grid[0, 5].images[0].get_array())
    assert (field[0] == 224).all()
    assert field.min() == 0  # "picture not there"


def test_the_pictures_are_those_found(found, tmp_path):
    figure, _ = draw_sheet(found)
    for axes, number in zip(np.array(figure.axes).reshape(2, 6)[0, [0, 2, 3]], (0, 1, 2), strict=True):
        shown = np.asarray(axes.images[0].get_array())
        with Image.open(tmp_path / f"{number}.png") as image:
            expected = np.asarray(image.resize((96, 192), Image.Resampling.LANCZOS))
        assert np.array_equal(shown, expected)
    save_figure(figure, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == pytest.approx((200 * 0.72 * 5.4, 200 * (2 * (0.9 * 1.44 + 0.35) + 0.3)), abs=1)


def test_a_query_without_hits_is_shown_alone(found):
    figure, _ = draw_sheet([SearchResult(found[0].query, [])])
    assert [bool(axes.images) for axes in figure.axes] == [True, False]


def test_the_table_and_the_json_say_what_is_unknown(found):
    lines = format_result(found[0]).splitlines()
    assert lines[0] == "query 0.png (visible, camera 3, identity 7)"
    assert [line.split() for line in lines[2:]] == [
        ["1", "0.9000", "yes", "2", "7", "1.png"],
        ["2", "0.8000", "no", "2", "8", "2.png"],
        ["3", "0.7000", "-", "2", "-", "3.png"],
        ["4", "0.6000", "yes", "2", "7", "4.png"],
    ]
    assert format_result(found[1]).splitlines()[0] == "query 9.png (visible)"
    assert format_result(SearchResult(found[0].query, [])).splitlines()[-1] == "nothing found"
    first, second = map(as_json, found)
    assert [hit["match"] for hit in first["hits"]] == [True, False, None, True]
    assert [hit["rank"] for hit in first["hits"]] == [1, 2, 3, 4]
    assert (second["camera"], second["identity"]) == (None, None)
