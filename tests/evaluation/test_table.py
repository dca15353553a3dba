"""The table that train and evaluate print."""

from ms_vireid.evaluation.metrics_table import AT_THRESHOLD, aligned, format_table

TRAINED = {"rank1": 0.67529, "rank5": 0.9, "rank10": 0.95, "rank20": 1.0, "map": 0.6498, "minp": 0.5186}
CHANCE = {"rank1": 0.0104, "rank5": 0.05, "rank10": 0.1, "rank20": 0.2, "map": 0.03, "minp": 0.01}


def test_rows_are_aligned_percentages_under_the_fields_names():
    assert format_table({"trained": TRAINED, "chance": CHANCE}) == "\n".join(
        [
            "[%]      rank-1  rank-5  rank-10  rank-20    mAP   mINP",
            "trained   67.53   90.00    95.00   100.00  64.98  51.86",
            "chance     1.04    5.00    10.00    20.00   3.00   1.00",
        ]
    )


def test_deviations_are_shown_for_the_rows_that_have_them():
    lines = format_table({"trained": TRAINED, "chance": CHANCE}, {"trained": {"rank1": 0.0123}}).splitlines()
    assert "67.53 ± 1.23" in lines[1]
    assert lines[1].count("±") == 1
    assert "±" not in lines[2]
    assert len({len(line) for line in lines}) == 1


def test_a_metric_that_a_row_lacks_is_a_dash():
    assert format_table({"run": {"rank1": 0.5}}).splitlines()[1].split() == ["run", "50.00", "-", "-", "-", "-", "-"]


def test_at_a_threshold_small_rates_of_false_matches_can_be_read():
    values = {"recall": 0.75, "precision": 0.5, "fmr": 0.000123}
    lines = format_table({"a": values}, {"a": {"fmr": 0.00001}}, AT_THRESHOLD).splitlines()
    assert lines[0].split() == ["[%]", "recall", "precision", "FMR", "DIR", "FPIR"]
    assert lines[1].split() == ["a", "75.00", "50.00", "0.0123", "±", "0.0010", "-", "-"]


def test_a_heading_wider_than_its_columns_widens_them():
    headings = [("", ""), ("a long heading", "x"), ("a long heading", "y")]
    lines = aligned(headings, [["row", "1", "2"]], left=1).split("\n")
    assert lines == ["     a long heading", "          x       y", "row       1       2"]
