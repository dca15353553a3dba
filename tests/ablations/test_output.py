"""What a table looks like, as text, Markdown and JSON."""

import json

import pytest

from ms_vireid.ablations.output import Report, RowResult
from ms_vireid.ablations.tables import Table
from ms_vireid.evaluation.metrics_table import markdown
from ms_vireid.files.checks import unsealed

TABLE = Table.model_validate(
    {
        "source": "A paper, Table 9",
        "title": "Whatever",
        "sets": {"sysu_mm01": [], "regdb": []},
        "columns": [
            {"name": "SYSU", "data": "sysu_mm01", "metrics": ["rank1", "map"]},
            {"name": "RegDB", "data": "regdb", "metrics": ["map"]},
        ],
        "rows": [
            {"name": "base", "label": "Base", "config": "a.yaml", "published": [60.0, 50.0, 40.0]},
            {
                "name": "more",
                "label": "+ More",
                "config": "b.yaml",
                "stand_in": "something like it",
                "published": [61.5, None, 41.0],
            },
            {"name": "theirs", "label": "Theirs", "published": [55.0, 45.0, 35.0]},
        ],
    }
)
BASE = [[{"rank1": 0.62, "map": 0.5}, {"rank1": 0.64, "map": 0.5}], [{"rank1": 0.9, "map": 0.395}]]


def report(demo=False, columns=TABLE.columns, **failed):
    results = [
        RowResult(TABLE.rows[0], BASE[: len(columns)], planned=4, complete=3),
        RowResult(TABLE.rows[1], [[] for _ in columns], planned=4, complete=0, **failed),
        RowResult(TABLE.rows[2], [[] for _ in columns], planned=0, complete=0),
    ]
    return Report("mine", TABLE, list(columns), results, demo, ["a note"])


def test_what_is_less_than_the_papers_is_said_beside_its_number():
    results = [RowResult(TABLE.rows[0], BASE, 4, 4, marks=("from scratch", "one split of RegDB"))]
    shown = Report("mine", TABLE, list(TABLE.columns), results, False, [])
    assert "\nBase (from scratch, one split of RegDB)  63.00 ± 1.00  60.00" in shown.text()
    assert "| Base (from scratch, one split of RegDB) | 63.00 ± 1.00 | 60.00" in shown.markdown()
    assert shown.as_dict()["rows"][0]["marks"] == ("from scratch", "one split of RegDB")


def test_ours_is_beside_the_published_number_and_the_difference():
    assert report().text() == "\n".join(
        [
            "A paper, Table 9: Whatever",
            "a note",
            "                         SYSU                                                    RegDB",
            "                         rank-1                      mAP                         mAP",
            "                                 ours  paper   diff          ours  paper   diff   ours  paper   diff",
            "Base                     63.00 ± 1.00  60.00  +3.00  50.00 ± 0.00  50.00  +0.00  39.50  40.00  -0.50",
            "+ More (stand-in)                   -  61.50      -             -      -      -      -  41.00      -",
            "Theirs (published only)             -  55.00      -             -  45.00      -      -  35.00      -",
            "Base: 3 of 4 runs",
            "+ More: something like it",
        ]
    )


def test_a_failed_row_says_so_in_its_cells_and_why_below():
    lines = report(failure="loss=nan at epoch 1").text().splitlines()
    assert lines[-5].split()[3:] == ["failed", "61.50", "-", "failed", "-", "-", "failed", "41.00", "-"]
    assert lines[-2:] == ["+ More: failed: loss=nan at epoch 1", "+ More: something like it"]


def test_a_demo_is_shown_apart_from_the_published_numbers():
    columns = [TABLE.columns[0].model_copy(update={"name": "synthetic set"})]
    assert report(demo=True, columns=columns).text() == "\n".join(
        [
            "A paper, Table 9: Whatever",
            "a note",
            "Ours, on the synthetic set:",
            "                   synthetic set",
            "                         rank-1           mAP",
            "Base               63.00 ± 1.00  50.00 ± 0.00",
            "+ More (stand-in)             -             -",
            "Published, on the real data, not to be compared:",
            "                         SYSU           RegDB",
            "                         rank-1    mAP    mAP",
            "Base                      60.00  50.00  40.00",
            "+ More (stand-in)         61.50      -  41.00",
            "Theirs (published only)   55.00  45.00  35.00",
            "Base: 3 of 4 runs",
            "+ More: something like it",
        ]
    )
    rows = json.loads(json.dumps(report(demo=True, columns=columns).as_dict()))["rows"]
    assert {number["difference"] for row in rows for number in row["numbers"]} == {None}
    assert rows[0]["published"] == [60.0, 50.0, 40.0]


@pytest.mark.parametrize("demo", [False, True])
def test_complete_rows_are_compared_with_the_first_seed_by_seed(demo):
    columns = [TABLE.columns[0].model_copy(update={"name": "a set"})] if demo else [TABLE.columns[0]]
    metrics = [[{"rank1": 0.60, "map": 0.5}, {"rank1": 0.64, "map": 0.5}, {"rank1": 0.68, "map": 0.5}]]
    higher = [[{"rank1": 0.62, "map": 0.5}, {"rank1": 0.65, "map": 0.5}, {"rank1": 0.74, "map": 0.5}]]
    results = [
        RowResult(TABLE.rows[0], metrics, planned=3, complete=3),
        RowResult(TABLE.rows[1], higher, planned=3, complete=3),
        RowResult(TABLE.rows[2], [[]], planned=0, complete=0),
    ]
    table = Report("mine", TABLE, columns, results, demo, [])
    lines = table.text().splitlines()
    at = lines.index("Above Base, seed by seed, ± standard error:")
    # gains 2, 1 and 6: mean 3, deviation sqrt(7), error sqrt(7 / 3)
    assert lines[at + 3].split(maxsplit=3)[3] == "+3.00 ± 1.53  +0.00 ± 0.00"
    assert [number["gain"] for number in table.as_dict()["rows"][1]["numbers"]] == [
        pytest.approx((3.0, (7 / 3) ** 0.5)),
        pytest.approx((0.0, 0.0)),
    ]
    results[1] = RowResult(TABLE.rows[1], higher, planned=4, complete=3)  # its seeds may be others
    assert "Above" not in table.text()


def test_markdown_has_one_line_of_headings():
    lines = report().markdown().splitlines()
    assert lines[0] == "# A paper, Table 9: Whatever"
    table = [line for line in lines if line.startswith("|")]
    assert table[0].startswith("|  | SYSU rank-1 ours | SYSU rank-1 paper | SYSU rank-1 diff | SYSU mAP ours |")
    assert table[1] == "| --- |" + " ---: |" * 9
    assert table[2] == "| Base | 63.00 ± 1.00 | 60.00 | +3.00 | 50.00 ± 0.00 | 50.00 | +0.00 | 39.50 | 40.00 | -0.50 |"
    assert {line.count("|") for line in table} == {11}
    assert lines[-2:] == ["* Base: 3 of 4 runs", "* + More: something like it"]


def test_a_bar_in_a_name_is_no_column_of_markdown():
    assert markdown([("", "row"), ("SYSU", "mAP")], [["a|b", "1.00"]]) == [
        "| row | SYSU mAP |",
        "| --- | ---: |",
        r"| a\|b | 1.00 |",
    ]


def test_markdown_names_a_single_group_of_columns_once():
    table = [line for line in report(columns=TABLE.columns[:1]).markdown().splitlines() if line.startswith("|")]
    assert table[0] == "| SYSU | rank-1 ours | rank-1 paper | rank-1 diff | mAP ours | mAP paper | mAP diff |"


def test_json_holds_what_is_shown():
    rows = report(failure="no").as_dict()["rows"]
    assert [row["status"] for row in rows] == ["partly run", "failed", "published only"]
    assert rows[0]["numbers"][2] == {
        "columns": "RegDB",
        "metric": "map",
        "mean": pytest.approx(39.5),
        "std": None,
        "published": 40.0,
        "difference": pytest.approx(-0.5),
        "gain": None,
    }


def test_the_tables_are_written_as_markdown_and_json(tmp_path):
    report().write(tmp_path)
    assert (tmp_path / "table.md").read_text() == report().markdown()
    assert unsealed(json.loads((tmp_path / "table.json").read_text())) == json.loads(json.dumps(report().as_dict()))
