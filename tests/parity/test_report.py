import re
import sys

import pytest

from ms_vireid.errors import InputError
from parity import report
from torch_ref.models import vit as torch_vit


def run_report(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["report.py", "--device", "CPU", *map(str, arguments)])
    report.main()


def test_each_case_is_a_line_and_the_last_line_sums_up(monkeypatch, capsys):
    run_report(monkeypatch, "--rung", 2, "--match", "Norm", "--small")
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("2 LayerNorm"))
    assert re.search(r"\de-\d\d +1e-0[45]  ok .* s  output 0, at \[\d", row)
    assert re.fullmatch(r"1 cases, 7 comparisons, 0 over tolerance, in \d+ s", lines[-1])


def test_a_difference_ends_in_exit_code_1_and_names_its_case(monkeypatch, capsys):
    monkeypatch.setattr(torch_vit, "LAYER_NORM_EPS", 1e-6)
    with pytest.raises(SystemExit) as stopped:
        run_report(monkeypatch, "--rung", 2, "--match", "LayerNorm", "--small")
    assert stopped.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert "OVER" in next(line for line in lines if line.startswith("2 LayerNorm"))
    assert "1 over tolerance: 2 LayerNorm" in lines[-1]


def test_the_page_needs_no_other_file_and_shows_both_frameworks_curves(monkeypatch, tmp_path):
    page = tmp_path / "parity.html"
    run_report(monkeypatch, "--match", "PMT stage 1", "--html", page)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|https?://|@import|url\(", text)
    figures = re.findall(r"<figure>.*?</figure>", text)
    assert len(figures) == 3  # loss, id, pht
    assert all(figure.count("<polyline") == 4 for figure in figures)
    assert "PMT stage 1, six updates" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--match", "no such case"), "no case matches"),
        (("--html", "/no/such/folder/page.html"), "its folder does not exist"),
        (("--rung", "8"), "invalid choice: 8"),
    ],
)
def test_bad_arguments_end_in_one_line(monkeypatch, arguments, message):
    with pytest.raises(InputError, match=message):
        run_report(monkeypatch, *arguments)
