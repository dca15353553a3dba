"""Metrics as a plain-text table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from ms_vireid.command.errors import printable

COLUMNS = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "rank20": "rank-20", "map": "mAP", "minp": "mINP"}
AT_THRESHOLD = {"recall": "recall", "precision": "precision", "fmr": "FMR", "dir": "DIR", "fpir": "FPIR"}
GAP = "  "


def format_table(
    rows: Mapping[str, Mapping[str, float]],
    deviations: Mapping[str, Mapping[str, float]] | None = None,
    columns: Mapping[str, str] = COLUMNS,
) -> str:
    """Format a line of metrics for each row, under a heading, in percent.

    rows: row name to metrics (fractions in 0..1, by the keys of `columns`); a metric that a row lacks shows as "-".
    deviations: the same for rows that show "± standard deviation" in each cell. columns: COLUMNS or AT_THRESHOLD.
    """
    deviations = deviations or {}
    headings = [(heading,) for heading in ("[%]", *columns.values())]
    lines = [[row, *(cell(name, rows[row], deviations.get(row, {})) for name in columns)] for row in rows]
    return aligned(headings, lines, left=1)


def aligned(headings: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], left: int) -> str:
    """Align text in columns, the first `left` of them to the left and the others to the right.

    headings: of each column, outermost first; one that neighbours share is printed once, above all of them. Cells and
    headings are printed on one line each.
    """
    headings, rows = ([list(map(printable, cells)) for cells in part] for part in (headings, rows))
    levels = [level for level in range(len(headings[0])) if any(heading[level] for heading in headings)]
    body = [[heading[levels[-1]] for heading in headings], *rows]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    over = [list(_spans(headings, level)) for level in levels[:-1]]
    for text, first, last in (span for spans in over for span in spans):
        while len(text) > sum(widths[first : last + 1]) + len(GAP) * (last - first):
            widths[first : last + 1] = [width + 1 for width in widths[first : last + 1]]
    lines = []
    for spans in over:
        texts = (text.ljust(sum(widths[i : j + 1]) + len(GAP) * (j - i)) for text, i, j in spans)
        lines.append(GAP.join(texts))
    for cells in body:
        padded = (c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        lines.append(GAP.join(padded))
    return "\n".join(line.rstrip() for line in lines)


def markdown(headings: Sequence[Sequence[str]], rows: Iterable[Sequence[str]]) -> list[str]:
    """Format a table as lines of Markdown. headings: as of `aligned`, each written out."""
    return [
        _markdown_row(" ".join(filter(None, heading)) for heading in headings),
        _markdown_row(["---", *["---:"] * (len(headings) - 1)]),
        *map(_markdown_row, rows),
    ]


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(printable(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _spans(headings: Sequence[Sequence[str]], level: int) -> Iterator[tuple[str, int, int]]:
    """Yield each heading of a level with the first and last column that it spans."""
    for texts, columns in groupby(range(len(headings)), key=lambda i: tuple(headings[i][: level + 1])):
        columns = list(columns)
        yield texts[level], columns[0], columns[-1]


def cell(name: str, metrics: Mapping[str, float], deviations: Mapping[str, float]) -> str:
    """Format a metric, a fraction, in percent, with its deviation if there is one."""
    if name not in metrics:
        return "-"
    decimals = 4 if name == "fmr" else 2  # as small as it is wanted
    value = f"{100 * metrics[name]:.{decimals}f}"
    return f"{value} ± {100 * deviations[name]:.{decimals}f}" if name in deviations else value
