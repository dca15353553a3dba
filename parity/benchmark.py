"""MindSpore and PyTorch on the same work in one run: seconds of each, and their ratio.

Each framework works in a process of its own, both from the same weights on the same batches, in turn, so that whatever
else runs on the machine slows both alike. A ratio is MindSpore's time over PyTorch's: below 1, MindSpore is faster. It
is the ratio of the medians; the spread is that of the repeats, each beside its neighbour.
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, add_device, check_least, run
from ms_vireid.data.corruptions import CORRUPTIONS
from ms_vireid.devices import runtime
from ms_vireid.devices.host import instruction_sets, processor_name
from ms_vireid.files.writing import check_output, write_json
from parity.measure import galleries, launches, pictures, steps
from parity.measure.workers import MODELS

# What a row's figure may be at most, by section and row (None: every one); a run with one above ends in exit code 1.
LIMITS = {("ranking", None): ("ratio", 0.8), ("corruptions", "mean"): ("ms_per_picture", 15.0)}
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


_OF_MODELS = (
    ("images", 7, "{batch}".format_map),
    ("MindSpore s", 13, "{mindspore_s:.3f}".format_map),
    ("PyTorch s", 11, "{torch_s:.3f}".format_map),
    *_RATIO,
    ("first s", 15, "{first_s[mindspore]:.1f} / {first_s[torch]:.1f}".format_map),
    ("peak GiB", 13, "{peak_gib[mindspore]:.1f} / {peak_gib[torch]:.1f}".format_map),
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
            ("peak GiB", 9, "{peak_gib:.1f}".format_map),
            ("first s", 8, "{first_s:.0f}".format_map),
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


def main() -> None:
    arguments = _parse()
    results = {
        "device": arguments.device,
        "machine": f"{processor_name()}, {os.cpu_count()} cores, {instruction_sets()}",
        "versions": {name: version(name) for name in ("mindspore", "torch", "torchvision", "numpy")},
        "repeats": arguments.repeats,
    }
    print(f"{results['machine']}; {', '.join(f'{name} {found}' for name, found in results['versions'].items())}")
    for name in arguments.only:
        results[name] = {}
        section = SECTIONS[name]
        print(f"\n{name}\n{section.head()}", flush=True)
        for row_name, row in section.rows([held for held in section.names if arguments.match in held], arguments):
            results[name][row_name] = row
            print(section.line(row_name, row), flush=True)
    if arguments.json:
        write_json(arguments.json, results)
        print(f"\nwrote {arguments.json}")
    if above := missed(results):
        print("\n" + "\n".join(above))
        sys.exit(1)


def missed(results: dict) -> list[str]:
    """A line for each figure that is above its limit."""
    return [
        f"{section}: {name}: {figure} is {row[figure]:.3g}, its limit {limit:g}"
        for (section, only), (figure, limit) in LIMITS.items()
        for name, row in results.get(section, {}).items()
        if only in (None, name) and row[figure] > limit
    ]


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_device(parser)
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, help="these sections alone (default: all but the last five)"
    )
    parser.add_argument("--match", default="", metavar="TEXT", help="only rows whose name holds this")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="of each measurement, after one unmeasured")
    parser.add_argument(
        "--identities", type=int, default=2, metavar="P", help="of a training batch, which has 2 P K images (paper: 8)"
    )
    parser.add_argument(
        "--instances", type=int, default=2, metavar="K", help="pictures of each and of either modality (paper: 4)"
    )
    parser.add_argument("--images", type=int, default=8, metavar="N", help="of a batch for inference")
    parser.add_argument(
        "--quick", action="store_true", help="two repeats on the smallest batches: minutes, for a first look"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures, in seconds and GiB")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values, as train.program=graph"
    )
    arguments = parser.parse_intermixed_args()
    if arguments.quick:
        arguments.repeats, arguments.identities, arguments.instances, arguments.images = 2, 2, 2, 4
    arguments.only = arguments.only or tuple(SECTIONS)[:6]
    check_least(arguments, repeats=1, identities=1, instances=1, images=1)
    if arguments.json:
        check_output(arguments.json, "--json")
    if not any(arguments.match in name for section in arguments.only for name in SECTIONS[section].names):
        raise InputError(f"--match {arguments.match}: no row has this in its name")
    found = found_device(arguments.device)
    print(f"device: {found}")
    arguments.device = found.split()[0]
    return arguments


def found_device(wanted: str) -> str:
    """The device in words, from a process of its own: this one has neither framework.

    Raises:
        InputError: it cannot be used.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(runtime.set_up, wanted).result()


if __name__ == "__main__":
    run(main)
