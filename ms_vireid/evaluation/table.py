"""Metrics as a plain-text table."""

from collections.abc import Mapping

COLUMNS = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "rank20": "rank-20", "map": "mAP", "minp": "mINP"}


def format_table(
    rows: Mapping[str, Mapping[str, float]], deviations: Mapping[str, Mapping[str, float]] | None = None
) -> str:
    """One line of metrics for each row name, under a heading, in percent with two decimals.

    rows: row name to metrics (fractions in 0..1, by the keys of COLUMNS); a metric that a row lacks shows as "-".
    deviations: the same for the rows, all or some, that show "± standard deviation" in each cell.
    """
    deviations = deviations or {}
    unknown = sorted({name for metrics in rows.values() for name in metrics} - COLUMNS.keys())
    if unknown:
        raise ValueError(f"no column for the metric {unknown[0]!r}: the table has {', '.join(COLUMNS)}")
    lines = [["[%]", *COLUMNS.values()]]
    for row, metrics in rows.items():
        lines.append([row, *(_cell(name, metrics, deviations.get(row, {})) for name in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def _cell(name: str, metrics: Mapping[str, float], deviations: Mapping[str, float]) -> str:
    if name not in metrics:
        return "-"
    value = f"{100 * metrics[name]:.2f}"
    return f"{value} ± {100 * deviations[name]:.2f}" if name in deviations else value
