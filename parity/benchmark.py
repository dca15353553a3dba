"""MindSpore and PyTorch on the same work in one run: seconds of each, and their ratio.

Each framework works in a process of its own, both from the same weights on the same batches, in turn, so that whatever
else runs on the machine slows both alike. A ratio is MindSpore's time over PyTorch's: below 1, MindSpore is faster. It
is the ratio of the medians; the spread is that of the repeats, each beside its neighbour.
"""

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, require_extra, run
from ms_vireid.devices import runtime
from ms_vireid.devices.host import instruction_sets, processor_name
from ms_vireid.files.writing import check_output, write_json

# By their names; parity/measure/sections.py has what they are. The last six only when asked for.
SECTIONS = ("train_step", "inference", "losses", "data", "ranking", "corruptions")
SECTIONS += ("kernels", "launches", "costs", "replacements", "search", "memory")
# What a row's figure may be at most, by section and row (None: every one); a run with one above ends in exit code 1.
LIMITS = {("ranking", None): ("ratio", 0.8), ("corruptions", "mean"): ("ms_per_picture", 15.0)}


def main() -> None:
    arguments = _parse()
    results = {
        "device": arguments.device,
        "machine": f"{processor_name()}, {os.cpu_count()} cores, {instruction_sets()}",
        "versions": {name: version(name) for name in ("mindspore", "torch", "torchvision", "numpy")},
        "repeats": arguments.repeats,
    }
    say(f"{results['machine']}; {', '.join(f'{name} {found}' for name, found in results['versions'].items())}")
    from parity.measure import sections

    for name in arguments.only:
        results[name] = {}
        section = sections.SECTIONS[name]
        say("", name, *section.head().split("\n"))
        for row_name, row in section.rows([held for held in section.names if arguments.match in held], arguments):
            results[name][row_name] = row
            say(*section.line(row_name, row).split("\n"))
    if arguments.json:
        write_json(arguments.json, results)
        say("", f"wrote {arguments.json}")
    if above := missed(results):
        say("", *above)
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
        "--only", nargs="+", choices=SECTIONS, help="these sections alone (default: all but the last six)"
    )
    parser.add_argument("--match", default="", metavar="TEXT", help="only rows whose name holds this")
    parser.add_number("benchmark --repeats", default=5, help="of each measurement, after one unmeasured")
    parser.add_number(
        "benchmark --identities", default=2, metavar="P", help="of a training batch, which has 2 P K images (paper: 8)"
    )
    parser.add_number(
        "benchmark --instances", default=2, metavar="K", help="pictures of each and of either modality (paper: 4)"
    )
    parser.add_number("benchmark --images", default=8, help="of a batch for inference")
    parser.add_argument(
        "--quick", action="store_true", help="two repeats on the smallest batches: minutes, for a first look"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures, in seconds and GiB")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values, as train.program=graph"
    )
    arguments = parser.parse_intermixed_args()
    require_extra("parity/benchmark.py", "parity", "torch", "torchvision")
    if arguments.quick:
        arguments.repeats, arguments.identities, arguments.instances, arguments.images = 2, 2, 2, 4
    arguments.only = arguments.only or SECTIONS[:6]
    if arguments.json:
        check_output(arguments.json, "--json")
    from parity.measure import sections

    if not any(arguments.match in name for section in arguments.only for name in sections.SECTIONS[section].names):
        raise InputError(f"--match {arguments.match}: no row has this in its name")
    found = found_device(arguments.device)
    say(f"device: {found}")
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
