"""The benchmark's sections: what each measures, and how its rows are printed."""

import argparse
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from parity.measure import galleries, launches, serving, steps
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


def _or_dash(show: Callable[[dict], str], figure: str) -> Callable[[dict], str]:
    return lambda row: "-" if row[figure] is None else show(row)


SECTIONS = {
    "train_step": Section(MODELS, steps.train_steps, "", _OF_MODELS),
    "inference": Section(MODELS, steps.inference, "", _OF_MODELS),
    "launches": Section(  # on stand-ins, which compute nothing: counts, no times but the host's
        launches.ROWS,
        launches.rows,
        "a step, on a stand-in",
        (
            ("images", 7, "{batch}".format_map),
            ("launches", 9, "{launches:,.0f}".format_map),
            ("by name", 8, "{by_name:,.0f}".format_map),
            ("PyTorch", 8, "{torch_launches:,}".format_map),
            ("TFLOP", 7, "{torch_tflop:.2f}".format_map),
            ("copies", 8, "{copies:.2f}".format_map),
            ("waits", 8, "{waits:.2f}".format_map),
            ("allocations", 12, "{allocations:.2f}".format_map),
            ("host ms", 9, "{host_ms:.1f}".format_map),
            ("peak GiB", 9, "{peak_gib:.1f}".format_map),
            ("PyTorch", 8, "{torch_peak_gib:.1f}".format_map),
            ("first s", 8, "{first_s:.0f}".format_map),
        ),
    ),
    "search": Section(
        galleries.SEARCH_ROWS,
        galleries.search,
        f"features of {galleries.WIDTH:,}",
        (
            ("ready s", 10, _or_dash("{ready_s:,.2f}".format_map, "ready_s")),
            ("s / 1,000 queries", 19, _or_dash("{search_s:,.2f}".format_map, "search_s")),
            ("recall@10", 11, _or_dash("{recall:.3f}".format_map, "recall")),
            ("GiB on disk", 13, _or_dash(lambda row: f"{row['bytes'] / 2**30:.2f}", "bytes")),
            ("peak GiB", 10, lambda row: f"{row['peak_bytes'] / 2**30:.2f}"),
            ("", 0, lambda row: f"  {row['stopped']}" if row["stopped"] else ""),
        ),
    ),
    "serving": Section(  # requests of one picture each
        serving.SERVING_ROWS,
        serving.serving,
        "requests",
        (
            ("requests a second", 20, "{ours_per_s:.2f}".format_map),
            ("p99 ms", 10, lambda row: f"{1e3 * row['ours_p99_s']:.0f}"),
            ("ONNX Runtime", 15, "{onnx_per_s:.2f}".format_map),
            ("p99 ms", 10, lambda row: f"{1e3 * row['onnx_p99_s']:.0f}"),
        ),
    ),
}
