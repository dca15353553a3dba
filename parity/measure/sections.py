"""The benchmark's sections: what each measures, and how its rows are printed."""

import argparse
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from ms_vireid.data.corruptions import CORRUPTIONS
from parity.measure import galleries, launches, pictures, serving, steps
from parity.measure.workers import MODELS

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


_SPREAD = "{spread[0]:.2f} to {spread[1]:.2f}".format_map
_RATIO = (("ratio", 8, "{ratio:.2f}".format_map), ("spread", 15, _SPREAD))


def _or_dash(show: Callable[[dict], str], figure: str) -> Callable[[dict], str]:
    return lambda row: "-" if row[figure] is None else show(row)


def _of_gpu(show: Callable[[dict], str]) -> Callable[[dict], str]:
    return lambda row: "-" if row["whole"]["h100_kernels_ms"] is None else show(row)


_OF_MODELS = (
    ("images", 7, "{batch}".format_map),
    ("MindSpore s", 13, "{mindspore_s:.4g}".format_map),
    ("PyTorch s", 11, "{torch_s:.4g}".format_map),
    *_RATIO,
    ("first s", 15, "{first_s[mindspore]:.1f} / {first_s[torch]:.1f}".format_map),
    ("peak GiB", 13, "{peak_gib[mindspore]:.1f} / {peak_gib[torch]:.1f}".format_map),
    ("held GiB", 13, lambda row: " / ".join("-" if gib is None else f"{gib:.1f}" for gib in row["held_gib"].values())),
)
SECTIONS = {
    "train_step": Section(MODELS, steps.train_steps, "", _OF_MODELS),
    "inference": Section(MODELS, steps.inference, "", _OF_MODELS),
    "losses": Section(
        steps.LOSSES,
        steps.losses,
        "",
        (
            ("MindSpore ms", 20, lambda row: f"{1e3 * row['mindspore_s']:.2f}"),
            ("PyTorch ms", 11, lambda row: f"{1e3 * row['torch_s']:.2f}"),
            *_RATIO,
        ),
    ),
    "data": Section(
        pictures.DATA_ROWS,
        pictures.data,
        "images a second",
        (
            ("workers", 7, "{workers}".format_map),
            ("ours", 13, "{mindspore_images_per_s:.0f}".format_map),
            ("PyTorch", 11, "{torch_images_per_s:.0f}".format_map),
            ("speed-up", 9, "{speedup:.2f}".format_map),
            ("spread", 14, _SPREAD),
        ),
    ),
    "ranking": Section(
        pictures.RANKING_ROWS,
        pictures.ranking,
        "",
        (("ours s", 20, "{ours_s:.3f}".format_map), ("argsort s", 11, "{argsort_s:.3f}".format_map), *_RATIO),
    ),
    "corruptions": Section(
        (*CORRUPTIONS, "mean"), pictures.corruptions, "", (("ms a picture", 20, "{ms_per_picture:.2f}".format_map),)
    ),
    "kernels": Section(  # of the CPU, with and without each of them, and bound threads
        steps.KERNEL_ROWS,
        steps.kernels,
        "a training step",
        (("without s", 20, "{without_s:.3f}".format_map), ("with s", 11, "{with_s:.3f}".format_map), *_RATIO),
    ),
    "launches": Section(  # on stand-ins: counts, not times
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
            # Of this machine, for a stand-in that computes nothing; a step takes the longer of its host and kernels.
            ("host ms", 9, "{host_ms:.1f}".format_map),
            ("kernels on an H100", 20, _or_dash("{h100_kernels_ms:.1f}".format_map, "h100_kernels_ms")),
            ("step, predicted", 16, _or_dash("{h100_ms:.1f}".format_map, "h100_ms")),
            ("peak GiB", 9, "{peak_gib:.1f}".format_map),
            ("PyTorch", 8, "{torch_peak_gib:.1f}".format_map),
            ("first s", 8, "{first_s:.0f}".format_map),
        ),
    ),
    "host": Section(  # of this machine, for a stand-in that computes nothing
        launches.HOST_ROWS,
        launches.host,
        "a step in the queue, ms",
        (
            ("images", 7, "{batch}".format_map),
            ("launches", 9, "{launches:,.0f}".format_map),
            ("MindSpore's own: least / median", 33, "{without[host_least_ms]:.1f} / {without[host_ms]:.1f}".format_map),
            ("of a core", 10, "{without[core_ms]:.1f}".format_map),
            ("as set up: least / median", 27, "{whole[host_least_ms]:.1f} / {whole[host_ms]:.1f}".format_map),
            ("of a core", 10, "{whole[core_ms]:.1f}".format_map),
            ("ratio", 7, "{ratio:.2f}".format_map),
        ),
    ),
    "costs": Section(  # on an H100: predicted from what is counted, PyTorch's measured
        launches.COST_ROWS,
        launches.costs,
        "a step on an H100",
        (
            ("MindSpore, predicted", 46, _or_dash("{kind}".format_map, "kind")),
            ("calls", 7, _or_dash("{calls:,.0f}".format_map, "calls")),
            ("ms", 8, _or_dash("{ms:.2f}".format_map, "ms")),
            ("PyTorch, measured", 32, _or_dash("{torch_kind}".format_map, "torch_kind")),
            ("ms", 8, _or_dash("{torch_ms:.2f}".format_map, "torch_ms")),
        ),
    ),
    "replacements": Section(  # of cells in a graph, without and with each of them; counted as launches
        launches.REPLACEMENT_ROWS,
        launches.replacements,
        "a step, without / with",
        (
            ("images", 7, "{whole[batch]}".format_map),
            ("launches", 15, "{without[launches]:,.0f} / {whole[launches]:,.0f}".format_map),
            ("by name", 13, "{without[by_name]:,.0f} / {whole[by_name]:,.0f}".format_map),
            ("copies", 15, "{without[copies]:.2f} / {whole[copies]:.2f}".format_map),
            ("waits", 13, "{without[waits]:.2f} / {whole[waits]:.2f}".format_map),
            (
                "ms of kernels on an H100",
                26,
                _of_gpu("{without[h100_kernels_ms]:.1f} / {whole[h100_kernels_ms]:.1f}".format_map),
            ),
            ("peak GiB", 13, "{without[peak_gib]:.1f} / {whole[peak_gib]:.1f}".format_map),
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
    "memory": Section(  # that many steps of training keep
        steps.MEMORY_ROWS,
        steps.memory,
        "a training step",
        (
            ("steps", 20, "{steps:,}".format_map),
            ("kB a step", 11, lambda row: f"{row['bytes_per_step'] / 1000:.1f}"),
            ("GiB at last", 13, "{last_gib:.2f}".format_map),
        ),
    ),
}
