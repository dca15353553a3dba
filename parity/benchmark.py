"""Time MindSpore and PyTorch on the same work in one run, and print the seconds of each and their ratio.

Each framework works in its own process, both from the same weights on the same batches, in turn, so that whatever else
runs on the machine slows both alike. A ratio is MindSpore's time divided by PyTorch's: below 1, MindSpore is faster. It
is the ratio of the medians; the spread is over the repeats, each beside its neighbour. Peaks are of the memory that a
framework hands out and of what it holds for that: on a GPU or an Ascend the device's, on a CPU the process's.
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import argparse
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ms_vireid.command.arguments import Bounds
from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, require_extra, run, work
from ms_vireid.devices import runtime
from ms_vireid.devices.host import instruction_sets, processor_name
from ms_vireid.files.writing import check_output, write_json, write_text
from parity.processes import OneProcess
from parity.versions import torch_build

# By their names; parity/measure/sections.py has what they are. The last eight only when asked for.
SECTIONS = ("train_step", "inference", "losses", "data", "ranking", "corruptions")
SECTIONS += ("kernels", "launches", "host", "costs", "replacements", "search", "serving", "memory")
SIDE_BY_SIDE = ("train_step", "inference", "losses")  # both frameworks, by `steps.measure`
# What a row's figure may be at most, by section and row (None: every one); a run with one above ends in exit code 1.
LIMITS = {("ranking", None): ("ratio", 0.8), ("corruptions", "mean"): ("ms_per_picture", 15.0)}

_TRAINED_BATCH = Bounds(1, 64, "a batch has twice their product of pictures, several times the papers' 8 x 4")
_REPEATS = Bounds(1, 1000, "each is measured anew, and beyond hundreds no median moves")


def main() -> None:
    arguments = _parse()
    results = {
        "device": arguments.device,
        "machine": f"{processor_name()}, {os.cpu_count()} cores, {instruction_sets()}",
        "versions": {name: version(name) for name in ("mindspore", "torchvision", "numpy")} | {"torch": torch_build()},
        "repeats": arguments.repeats,
    }
    say(f"{results['machine']}; {', '.join(f'{name} {found}' for name, found in results['versions'].items())}")
    sections = work("parity.measure.sections")
    chosen = {name: [row for row in sections.SECTIONS[name].names if arguments.match in row] for name in arguments.only}
    if arguments.ready:
        arguments.ready.unlink(missing_ok=True)
    rows = {name: sections.SECTIONS[name].rows(names, arguments) for name, names in chosen.items()}
    kernels: dict[str, dict] = {}
    outputs = {path: given for path, given in ((arguments.json, results), (arguments.kernels, kernels)) if path}
    with _alone(arguments.ready, arguments.gate):
        for name in arguments.only:
            results[name] = {}
            section = sections.SECTIONS[name]
            say("", name, *section.head().split("\n"))
            for row_name, row in rows[name]:
                if "kernels" in row:
                    kernels.setdefault(name, {})[row_name] = row.pop("kernels")
                results[name][row_name] = row
                say(*section.line(row_name, row).split("\n"))
                if row_name in kernels.get(name, {}):
                    say(on_device(kernels[name][row_name]))
                for path, figures in outputs.items():  # now: a later row may fail
                    write_json(path, figures)
    if outputs:
        say("", f"wrote {' and '.join(map(str, outputs))}")
    if above := missed(results):
        say("", *above)
        sys.exit(1)


@contextmanager
def _alone(ready: Path | None, gate: Path | None) -> Iterator[None]:
    """A block that measures, of one process at a time among those that are given the same gate: once that is there."""
    if gate is None:
        yield
        return
    if ready:
        write_text(ready, "")
    say(f"ready to measure, once {gate} is there")
    while not gate.exists():
        time.sleep(0.2)
    with gate.open(encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def on_device(kernels: dict[str, dict]) -> str:
    """How long a step kept the device busy, by side."""
    busy = {framework: found["busy_ms"] / found["steps"] for framework, found in kernels.items()}
    return f"    on the device: MindSpore {busy['mindspore']:.1f} ms a step, PyTorch {busy['torch']:.1f}"


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
        "--only",
        nargs="+",
        default=[],
        metavar="SECTION",
        help=f"only these sections: {', '.join(SECTIONS)} (default: all but the last eight)",
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
        "--kernels", type=Path, metavar="F", help="also write what each side runs on a GPU, kernel by kernel"
    )
    parser.add_argument(
        "--gate",
        type=Path,
        metavar="F",
        help="start everything, wait until F exists, then measure while no other process does",
    )
    parser.add_argument(
        "--ready", type=Path, metavar="F", help="make F once everything that --gate holds back is compiled"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values, such as train.program=graph"
    )
    arguments = parser.parse_intermixed_args()
    require_extra("parity/benchmark.py", "parity", "torch", "torchvision")
    if arguments.quick:
        arguments.repeats, arguments.identities, arguments.instances, arguments.images = 2, 2, 2, 4
    given = [word for word in arguments.only if "=" not in word]
    if unknown := [name for name in given if name not in SECTIONS]:
        raise InputError(f"--only {unknown[0]}: there are {', '.join(SECTIONS)}; see --help")
    arguments.overrides += [word for word in arguments.only if "=" in word]  # which may come right after
    arguments.only = given or SECTIONS[:6]
    for option in ("json", "kernels", "ready", "gate"):
        check_output(getattr(arguments, option), f"--{option}")
    if arguments.ready and not arguments.gate:
        raise InputError("--ready: says when --gate can be made; give both")
    side_by_side = arguments.gate or arguments.kernels
    if side_by_side and (others := [name for name in arguments.only if name not in SIDE_BY_SIDE]):
        problem = f"--gate and --kernels: concern {', '.join(SIDE_BY_SIDE)}, not {', '.join(others)}"
        raise InputError(f"{problem}; name sections by --only")
    if "tuned" in arguments.torch and not {"train_step", "inference"} & set(arguments.only):
        raise InputError("--torch tuned: is beside train_step and inference; name one of them by --only")
    sections = work("parity.measure.sections")
    if not any(arguments.match in name for section in arguments.only for name in sections.SECTIONS[section].names):
        raise InputError(f"--match {arguments.match}: no row has this in its name")
    found = found_device(arguments.device)
    say(f"device: {found}")
    arguments.device = found.split()[0]
    arguments.steps = arguments.steps or (1 if arguments.device == "CPU" else 20)
    if arguments.kernels and not (arguments.device == "GPU" and _elsewhere(_torch_sees_a_gpu)):
        say("--kernels: there is no device to profile")
        arguments.kernels = None
    return arguments


def found_device(wanted: str) -> str:
    """The device in words, from a process of its own: this one has neither framework.

    Raises:
        InputError: it cannot be used.
    """
    return _elsewhere(runtime.set_up, wanted)


def _torch_sees_a_gpu() -> bool:
    import torch  # in a process of its own

    return torch.cuda.is_available()


def _elsewhere(function: Callable, *arguments) -> Any:
    """What a function returns in a process of its own."""
    with OneProcess() as process:
        return process.ask(function, *arguments)


if __name__ == "__main__":
    run(main)
