"""Time MindSpore and PyTorch on the same work in one run, and print the seconds of each and their ratio.

Each framework works in its own process, both from the same weights on the same batches, in turn, so that whatever else
runs on the machine slows both alike. A ratio is MindSpore's time divided by PyTorch's: below 1, MindSpore is faster. It
is the ratio of the medians; the spread is over the repeats, each beside its neighbour. Peaks are of the memory that a
framework hands out and of what it holds for that: on a GPU or an Ascend the device's, on a CPU the process's.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import argparse
import os
from importlib.metadata import version
from pathlib import Path

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, require_extra, run
from ms_vireid.devices import runtime
from ms_vireid.devices.cpu import instruction_sets, processor_name
from ms_vireid.files.writing import check_output, write_json
from parity.processes import OneProcess
from parity.versions import torch_build

SECTIONS = ("train_step", "inference", "launches")  # as in parity/measure/sections.py; the last only when asked for

_TRAINED_BATCH = Bounds(1, 64, "a batch has twice their product of pictures, several times the papers' 8 x 4")
_REPEATS = Bounds(1, 1000, "each is measured again, and hundreds settle a median")


def main() -> None:
    arguments = _parse()
    results = {
        "device": arguments.device,
        "machine": f"{processor_name()}, {os.cpu_count()} cores, {instruction_sets()}",
        "versions": {name: version(name) for name in ("mindspore", "numpy")} | {"torch": torch_build()},
        "repeats": arguments.repeats,
    }
    say(f"{results['machine']}; {', '.join(f'{name} {found}' for name, found in results['versions'].items())}")
    with at_once():
        from parity.measure import sections

    for name in arguments.only:
        results[name] = {}
        section = sections.SECTIONS[name]
        say("", name, section.head())
        for row_name, row in section.rows([row for row in section.names if arguments.match in row], arguments):
            results[name][row_name] = row
            say(section.line(row_name, row))
            if arguments.json:  # now: a later row may fail
                write_json(arguments.json, results)
    if arguments.json:
        say("", f"wrote {arguments.json}")


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_device(parser)
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=SECTIONS[:2], help="only these sections (default: the first two)"
    )
    parser.add_argument("--match", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_number("--repeats", _REPEATS, default=5, help="repeats of each measurement, after an unmeasured one")
    parser.add_number(
        "--identities",
        _TRAINED_BATCH,
        default=2,
        metavar="P",
        help="identities in a training batch, which has 2 P K images (paper: 8)",
    )
    parser.add_number(
        "--instances",
        _TRAINED_BATCH,
        default=2,
        metavar="K",
        help="pictures of each identity in each modality (paper: 4)",
    )
    parser.add_number(
        "--images",
        Bounds(1, 1024, "several times the largest batch of the papers"),
        default=8,
        help="pictures in a batch for inference",
    )
    parser.add_argument(
        "--torch",
        nargs="+",
        choices=("eager", "tuned"),
        default=["eager"],
        help="the PyTorch beside train_step and inference: the mirror as it is (default), tuned as an expert would "
        "(compiled; on a GPU also CUDA graphs, fused attention and optimiser, channels last), or a row for each",
    )
    parser.add_argument(
        "--quick", action="store_true", help="two repeats on the smallest batches, in minutes, for a first look"
    )
    parser.add_number(
        "--steps", _REPEATS, default=None, help="steps of each measurement (default: 1 on a CPU, else 20)"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures, in seconds and GiB")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values, such as train.backend=graph"
    )
    arguments = parser.parse_intermixed_args()
    require_extra("parity/benchmark.py", "parity", "torch")
    of_training, of_images = ("--identities", "--instances"), ("--images",)
    if not {"train_step", "inference"} & set(arguments.only):
        of_models = "--device", "--repeats", "--steps", "--torch", "--quick", *of_training, *of_images
        parser.refuse(
            arguments, "launches are counted on stand-ins for both devices, at the papers' batches", *of_models
        )
    if "train_step" not in arguments.only:
        parser.refuse(arguments, "no training step is timed", *of_training)
    if "inference" not in arguments.only:
        parser.refuse(arguments, "no inference is timed", *of_images)
    if arguments.quick:
        parser.refuse(arguments, "--quick says how many", "--repeats", *of_training, *of_images)
        arguments.repeats, arguments.identities, arguments.instances, arguments.images = 2, 2, 2, 4
    check_output(arguments.json, "--json")
    with at_once():
        from parity.measure import sections

    if not any(arguments.match in name for section in arguments.only for name in sections.SECTIONS[section].names):
        raise InputError(f"--match {arguments.match}: no row has this in its name")
    with OneProcess() as process:  # this one has neither framework
        found = process.ask(runtime.set_up, arguments.device)
    say(f"device: {found}")
    arguments.device = found.split()[0]
    arguments.steps = arguments.steps or (1 if arguments.device == "CPU" else 20)
    return arguments


if __name__ == "__main__":
    run(main)
