"""Curves from metrics.jsonl."""

import json

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.visualization.curves import draw_curves, read_curves

ROWS = [
    {"epoch": 1, "step": 2, "loss": 3.0, "id": 2.5, "lr_full": 1e-4, "lr_backbone": 5e-5, "images_per_second": 9.0},
    {"epoch": 1, "step": 4, "evaluation": {"rank1": 0.25, "rank5": 0.5, "map": 0.2, "minp": 0.1}},
    {"epoch": 2, "step": 4, "loss": 2.0, "id": 1.5, "msel": 0.5, "lr_full": 2e-4, "lr_backbone": 1e-4},
]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_terms_rates_and_metrics_are_told_apart(run):
    panels = read_curves(run)
    terms = {"loss": [(2, 3.0), (4, 2.0)], "id": [(2, 2.5), (4, 1.5)], "msel": [(4, 0.5)]}
    assert panels == {name: {name: points} for name, points in terms.items()} | {
        "learning rate": {"full": [(2, 1e-4), (4, 2e-4)], "backbone": [(2, 5e-5), (4, 1e-4)]},
        "metrics on the test set": {"rank-1": [(4, 25)], "mAP": [(4, 20)], "mINP": [(4, 10)]},
    }
    assert read_curves(run / "metrics.jsonl") == panels


def test_a_line_that_a_killed_run_cut_off_is_left_out(run):
    whole = read_curves(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')
    assert read_curves(run) == whole


@pytest.mark.parametrize("line", ["nonsense", "[1, 2]", '{"loss": 1}', '{"step": "two"}'])
def test_other_files_are_refused_with_the_line(run, line):
    (run / "metrics.jsonl").write_text(line + "\n" + json.dumps(ROWS[0]) + "\n")
    with pytest.raises(InputError, match=r"metrics.jsonl:1: is not a line of metrics"):
        read_curves(run)


def test_a_run_without_losses_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl: no such metrics\.jsonl of a run"):
        read_curves(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="holds no loss"):
        read_curves(tmp_path)


def test_a_panel_for_each_term_the_rates_and_the_metrics(run):
    figure = draw_curves([read_curves(run)], ["run"])
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in shown] == list(read_curves(run))
    assert shown[0].lines[0].get_xydata().tolist() == [[2, 3.0], [4, 2.0]]
    assert [line.get_ydata()[-1] for line in shown[3].lines] == [2e-4, 1e-4]
    assert [text.get_text() for text in shown[4].get_legend().get_texts()] == ["rank-1", "mAP", "mINP"]
    assert {line.get_marker() for line in shown[4].lines} == {"o"}  # a line of a single point would not show


def test_two_runs_share_the_panels_and_are_named(run):
    one = read_curves(run)
    other = {title: one[title] for title in ("metrics on the test set", "dcl", "loss") if title in one} | {
        "dcl": {"dcl": [(1, 1.0), (2, 0.5)]}
    }
    figure = draw_curves([one, other], ["one", "two"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]
    assert len({line.get_marker() for line in figure.axes[0].lines}) == 2
    shown = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    assert shown == ["loss", "id", "msel", "dcl", "learning rate", "metrics on the test set"]


def test_the_names_of_six_runs_are_whole(run):
    figure = draw_curves([read_curves(run)] * 6, [f"{number}: {'a name of a run ' * 2}" for number in range(6)])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert all(axes.get_window_extent().y0 > box.y1 for axes in figure.axes if axes.axison)
