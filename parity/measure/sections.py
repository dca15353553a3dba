"""The benchmark's sections: what each measures, and how its rows are printed."""

import argparse
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

from parity.measure import launches, steps
from parity.measure.work import MODELS

WIDTH = 34  # of a row's name


class Section(NamedTuple):
    """names: of its rows. rows: measures some of them, by the command's arguments. corner: what stands above the names.
    columns: head, width, and a figure of a row in words."""

    names: Collection[str]
    rows: Callable[[Sequence[str], argparse.Namespace], steps.Rows]
    corner: str
    columns: Sequence[tuple[str, int, Callable[[dict], str]]]

    def head(self) -> str:
        return f"{self.corner:{WIDTH}}" + "".join(f"{head:>{width}}" for head, width, _ in self.columns)

    def line(self, name: str, row: dict) -> str:
        return f"{name:{WIDTH}}" + "".join(f"{show(row):>{width}}" for _, width, show in self.columns)


_OF_MODELS = (
    ("images", 7, "{batch}".format_map),
    ("MindSpore s", 13, "{mindspore_s:.4g}".format_map),
    ("PyTorch s", 11, "{torch_s:.4g}".format_map),
    ("ratio", 8, "{ratio:.2f}".format_map),
    ("spread", 15, "{spread[0]:.2f} to {spread[1]:.2f}".format_map),
    ("first s", 15, "{first_s[mindspore]:.1f} / {first_s[torch]:.1f}".format_map),
    ("peak GiB", 13, "{peak_gib[mindspore]:.1f} / {peak_gib[torch]:.1f}".format_map),
    ("held GiB", 13, lambda row: " / ".join("-" if gib is None else f"{gib:.1f}" for gib in row["held_gib"].values())),
)


SECTIONS = {
    **{kind: Section(MODELS, partial(steps.rows, kind), "", _OF_MODELS) for kind in ("train_step", "inference")},
    "launches": Section(  # on stand-ins, which compute nothing: counts, no times but the host's
        launches.ROWS,
        launches.rows,
        "a step, on a stand-in",
        (
            ("images", 7, "{batch}".format_map),
            ("launches", 9, "{launches:,.0f}".format_map),
            ("by name", 8, "{by_name:,.0f}".format_map),
            ("copies", 8, "{copies:.2f}".format_map),
            ("waits", 8, "{waits:.2f}".format_map),
            ("allocations", 12, "{allocations:.2f}".format_map),
            ("host ms", 9, "{host_ms:.1f}".format_map),
            ("peak GiB", 9, "{peak_gib:.1f}".format_map),
            ("first s", 8, "{first_s:.0f}".format_map),
        ),
    ),
}
