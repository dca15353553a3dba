"""MindSpore and PyTorch on the same work in one run: seconds of each, and their ratio.

Each framework works in a process of its own, both from the same weights on the same batches, in turn, so that whatever
else runs on the machine slows both alike. A ratio is MindSpore's time over PyTorch's: below 1, MindSpore is faster. It
is the ratio of the medians; the spread is that of the repeats, each beside its neighbour.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from timeit import repeat

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, add_device, check_least, run
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.devices import runtime
from ms_vireid.devices.host import instruction_sets, processor_name
from ms_vireid.files.writing import check_output, write_json
from parity import workers
from parity.measure import launches
from parity.workers import BOUND, MODELS, Work

SECTIONS = ("train_step", "inference", "losses", "data", "ranking", "corruptions")  # the default
LAUNCHES = "launches"  # on stand-ins: counts, not times
KERNELS = "kernels"  # of the CPU, with and without each of them, and bound threads
MEMORY = "memory"  # that many steps of training keep
LOSSES = ("hard triplet", "intra", "global", "wrt", "hct", "msel", "msel cosine", "dcl dynamic", "ia", "ma")
# What a row's figure may be at most, by section and row (None: every one); a run with one above ends in exit code 1.
LIMITS = {("ranking", None): ("ratio", 1.0), ("corruptions", "mean"): ("ms_per_picture", 15.0)}
AGREEMENT = 1e-2  # of the first results, relative: less would not be the same work
DATA_WORKERS = 2


def main() -> None:
    arguments = _parse()
    results = {
        "device": arguments.device,
        "machine": f"{processor_name()}, {os.cpu_count()} cores, {instruction_sets()}",
        "versions": _versions(),
        "repeats": arguments.repeats,
    }
    print(f"{results['machine']}; {', '.join(f'{name} {version}' for name, version in results['versions'].items())}")
    for section in arguments.only or SECTIONS:
        results[section] = {}
        rows, head, line = _TABLES[section]
        print(f"\n{section}\n{head}", flush=True)
        for name, row in rows(arguments):
            results[section][name] = row
            print(line(name, row), flush=True)
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
        "--only",
        nargs="+",
        choices=(*SECTIONS, KERNELS, LAUNCHES, MEMORY),
        help="these sections alone (default: all but the last three)",
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
        "overrides", nargs="*", metavar="key.sub=value", help="configuration values of all models, as train.mode=jit"
    )
    arguments = parser.parse_intermixed_args()
    if arguments.quick:
        arguments.repeats, arguments.identities, arguments.instances, arguments.images = 2, 2, 2, 4
    check_least(arguments, repeats=1, identities=1, instances=1, images=1)
    if arguments.json:
        check_output(arguments.json, "--json")
    if not any(arguments.match in name for name in (*MODELS, *LOSSES, *_ROWS)):
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


# --- models and losses ------------------------------------------------------------------------------------------------


def _train_steps(arguments: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    for name, (config, overrides, stage) in MODELS.items():
        if arguments.match in name:
            work = _train_step(arguments, config, overrides, stage)
            yield name, {"batch": 2 * arguments.identities * arguments.instances} | _with_weights(work, arguments)


def _train_step(arguments: argparse.Namespace, config: str, overrides: tuple[str, ...], stage: int) -> Work:
    batch = (
        f"train.num_identities={arguments.identities}",
        f"train.num_instances={arguments.instances}",
        "model.num_classes=395",
    )
    return Work("train_step", config, (*overrides, *batch, *arguments.overrides), arguments.device, "", stage=stage)


def _inference(arguments: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    for name, (config, overrides, _) in MODELS.items():
        if arguments.match in name:
            overrides = (*overrides, "model.num_classes=395", *arguments.overrides)
            work = Work("inference", config, overrides, arguments.device, "", images=arguments.images)
            yield name, {"batch": arguments.images} | _with_weights(work, arguments)


def _kernels(arguments: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """A training step without the kernel of one type of cell, or without bound threads, beside that with all."""
    for name, (model, kernel) in _KERNEL_ROWS.items():
        if arguments.match in name:
            work = _train_step(arguments, *MODELS[model])
            both = [("mindspore", replace(work, without=kernel)), ("mindspore", work)]
            row = _with_weights(work, arguments, both)
            yield name, {"without_s": row.pop("mindspore_s"), "with_s": row.pop("torch_s"), **row}


def _memory(arguments: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """By how much a training step lets the process's memory grow: the slope over the second half of many."""
    for name, (config, overrides, stage, steps) in _MEMORY_ROWS.items():
        if arguments.match in name:
            work = _train_step(arguments, config, overrides, stage)
            with tempfile.TemporaryDirectory() as folder:
                work = replace(work, folder=folder)
                workers.make_weights(work)
                worker = workers.start("mindspore", work)
                resident = []
                for _ in range(steps):
                    worker.run()
                    resident.append(worker.resident())
                worker.close()
            half = np.array(resident[steps // 2 :], np.float64)
            slope = float(np.polyfit(np.arange(len(half)), half, 1)[0])
            yield name, {"steps": steps, "bytes_per_step": slope, "last_gib": resident[-1] / 2**30}


def _with_weights(work: Work, arguments: argparse.Namespace, sides: Sequence[tuple[str, Work]] | None = None) -> dict:
    """`sides`: both frameworks with their own work; None: with the same."""
    with tempfile.TemporaryDirectory() as folder:
        workers.make_weights(replace(work, folder=folder))
        sides = sides or workers.sides(work)
        return _side_by_side([(side, replace(own, folder=folder)) for side, own in sides], arguments.repeats)


def _losses(arguments: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    for name in LOSSES:
        if arguments.match in name:
            work = Work("loss", "pmt/sysu.yaml", tuple(arguments.overrides), arguments.device, "", loss=name)
            yield name, _side_by_side(workers.sides(work), 4 * arguments.repeats)


def _side_by_side(sides: Sequence[tuple[str, Work]], repeats: int) -> dict:
    """Start both, a framework with its work each, see that they compute the same, and have them work in turn."""
    both = [workers.start(*side) for side in sides]
    work = sides[0][1]
    ours, theirs = (np.asarray(worker.value, np.float64) for worker in both)
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not error <= AGREEMENT:
        raise InputError(
            f"{work.kind} of {work.config}: both sides' first results differ by {error:.1e} of their size; "
            "python parity/report.py shows where"
        )
    for worker in both:  # caches, compiled kernels
        worker.run()
        worker.seconds.clear()
    for _ in range(repeats):
        for worker in both:
            worker.run()
    seconds = [worker.seconds for worker in both]
    first = [worker.first for worker in both]
    peaks = [worker.close() for worker in both]
    return _ratio(*seconds) | {
        "first_s": dict(zip(workers.FRAMEWORKS, first, strict=True)),
        "peak_gib": dict(zip(workers.FRAMEWORKS, peaks, strict=True)),
    }


def _ratio(ours: list[float], theirs: list[float]) -> dict:
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    medians = float(np.median(ours)), float(np.median(theirs))
    return {
        "mindspore_s": medians[0],
        "torch_s": medians[1],
        "ratio": medians[0] / medians[1],
        "spread": [min(pairs), max(pairs)],
    }


# --- pictures ---------------------------------------------------------------------------------------------------------


def _data(arguments: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Pictures from disk to training batches: our loader beside torch.utils.data.DataLoader with torchvision's
    transforms, on the same files in the same batches with as many worker processes."""
    from parity.pictures import loaders

    with tempfile.TemporaryDirectory() as folder:
        for name, (config, cache) in _DATA_ROWS.items():
            if arguments.match not in name:
                continue
            overrides = [
                "data={name: synthetic, synthetic: {train_identities: 24, val_identities: 2, test_identities: 4, "
                f"images_per_camera: 4, image_size: [384, 192]}}, workers: {DATA_WORKERS}}}",
                f"data.root={json.dumps(f'{folder}/pictures')}",
                f"data.cache={cache}",
                f"data.image_size={list(load_config(CONFIG_ROOT / config).data.image_size)}",
                f"train.iterations={10 if arguments.quick else 60}",
                "model.num_classes=26",
            ]
            ours, theirs, images = loaders(load_config(CONFIG_ROOT / config, overrides))
            rates = [
                tuple(images / _seconds(lambda read=read: len(list(read()))) for read in (ours, theirs))
                for _ in range(arguments.repeats)
            ]
            medians = np.median(rates, axis=0)
            quotients = [a / b for a, b in rates]
            yield (
                name,
                {
                    "mindspore_images_per_s": float(medians[0]),
                    "torch_images_per_s": float(medians[1]),
                    "speedup": float(medians[0] / medians[1]),
                    "spread": [min(quotients), max(quotients)],
                    "workers": DATA_WORKERS,
                },
            )


def _ranking(arguments: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """CMC, mAP and mINP of a distance matrix, beside numpy's argsort of the same matrix alone."""
    from ms_vireid.evaluation import evaluate_ranking

    for name, (queries, gallery, identities) in _RANKING_ROWS.items():
        if arguments.match in name:
            rng = np.random.default_rng(0)
            case = (
                rng.random((queries, gallery), np.float32),
                rng.integers(0, identities, queries),
                np.arange(gallery) * identities // gallery,
                rng.choice([3, 6], queries),
                np.resize(np.repeat([1, 2, 4, 5], 10), gallery),
            )
            times = [
                (_seconds(lambda c=case: evaluate_ranking(*c)), _seconds(lambda c=case: np.argsort(c[0], axis=1)))
                for _ in range(arguments.repeats)
            ]
            row = _ratio(*map(list, zip(*times, strict=True)))
            yield name, {"ours_s": row.pop("mindspore_s"), "argsort_s": row.pop("torch_s"), **row}


def _launches(arguments: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """What a step of the papers' batch asks of a GPU and of an Ascend, beside what PyTorch's eager mode launches."""
    yield from launches.count(_LAUNCH_ROWS, arguments.match, arguments.overrides)


def _corruptions(arguments: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Processor time of each corruption at 288x144, the mean over severities, in ms a picture."""
    from ms_vireid.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (288, 144, 3), dtype=np.uint8)
    costs = {}
    for name in CORRUPTIONS:
        works = [partial(corrupt, pixels, name, severity, rng) for severity in SEVERITIES]
        runs = [repeat(work, timer=time.process_time, number=1, repeat=arguments.repeats) for work in works]
        costs[name] = mean(map(min, runs))
    costs["mean"] = sum(costs.values()) / len(costs)
    for name, seconds in costs.items():
        if arguments.match in name:
            yield name, {"ms_per_picture": 1000 * seconds}


def _seconds(work: Callable) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# Rows of bound threads, and of the cells and optimisers that have kernels: the model and what it goes without.
_KERNEL_ROWS = {
    f"{model.split()[0]}, {kernel}": (model, kernel)
    for model, kernels in zip(
        MODELS,
        (
            (BOUND, "PatchProjection", "GELU", "LayerNorm", "Dense", "HeadsAttention", "Dropout", "DropPath", "AdamW"),
            (BOUND, "Conv2d", "Bottleneck", "NonLocal", "BatchNormAct2d", "MaxPool2d", "GeM", "SGD"),
            ("IntraModalityLearner", "CrossModalityLearner", "Joined"),
        ),
        strict=True,
    )
    for kernel in kernels
}
_MEMORY_ROWS = {  # with their steps
    "PMT, demonstration": ("demo.yaml", (), 1, 2000),
    "MUN, demonstration": ("mun/demo.yaml", (), 0, 2000),
    **{name: (*row, 60) for name, row in MODELS.items()},
}
_DATA_ROWS = {  # PyTorch's side decodes every picture anew
    "PMT, 256x128, decoded": ("pmt/sysu.yaml", "none"),
    "AGW, 288x144, decoded": ("agw/sysu.yaml", "none"),
    "AGW, 288x144, kept in memory": ("agw/sysu.yaml", "memory"),
}
_RANKING_ROWS = {"SYSU-MM01 multi-shot, 3803 x 3010": (3803, 3010, 96), "LLCM, 7166 x 8680": (7166, 8680, 351)}
_LAUNCH_ROWS = launches.names(MODELS)
_ROWS = (*_MEMORY_ROWS, *_DATA_ROWS, *_RANKING_ROWS, *_LAUNCH_ROWS, *_KERNEL_ROWS)


# --- what is printed --------------------------------------------------------------------------------------------------

_WIDTH = 34
_MODEL_HEAD = (
    f"{'':{_WIDTH}}{'images':>7}{'MindSpore s':>13}{'PyTorch s':>11}{'ratio':>8}{'spread':>15}"
    f"{'first s':>15}{'peak GiB':>13}"
)


def _spread(row: dict) -> str:
    return f" {row['spread'][0]:.2f} to {row['spread'][1]:.2f}"


def _pair(values: dict, digits: int) -> str:
    return " / ".join(f"{values[framework]:.{digits}f}" for framework in workers.FRAMEWORKS)


def _model_line(name: str, row: dict) -> str:
    return (
        f"{name:{_WIDTH}}{row['batch']:7}{row['mindspore_s']:13.3f}{row['torch_s']:11.3f}{row['ratio']:8.2f}"
        f"{_spread(row):>15}{_pair(row['first_s'], 1):>15}{_pair(row['peak_gib'], 1):>13}"
    )


def _ratio_line(ours: str, theirs: str, digits: int = 3, factor: float = 1.0) -> Callable[[str, dict], str]:
    """A line of two times, which the row has under these names, in seconds times `factor`."""

    def line(name: str, row: dict) -> str:
        times = f"{factor * row[ours]:13.{digits}f}{factor * row[theirs]:11.{digits}f}"
        return f"{name:{_WIDTH}}{'':7}{times}{row['ratio']:8.2f}{_spread(row):>15}"

    return line


def _data_line(name: str, row: dict) -> str:
    return (
        f"{name:{_WIDTH}}{row['workers']:7}{row['mindspore_images_per_s']:13.0f}{row['torch_images_per_s']:11.0f}"
        f"{row['speedup']:9.2f}{_spread(row):>14}"
    )


def _memory_line(name: str, row: dict) -> str:
    return f"{name:{_WIDTH}}{'':7}{row['steps']:13,}{row['bytes_per_step'] / 1000:11.1f}{row['last_gib']:13.2f}"


def _launch_line(name: str, row: dict) -> str:
    return (
        f"{name:{_WIDTH}}{row['batch']:7}{row['launches']:9,.0f}{row['by_name']:8,.0f}{row['torch_launches']:8,}"
        f"{row['copies']:8.2f}{row['waits']:8.2f}{row['allocations']:12.2f}{row['peak_gib']:9.1f}{row['first_s']:8.0f}"
    )


_TABLES = {  # of each section: what makes its rows, its head, and what prints a row
    "train_step": (_train_steps, _MODEL_HEAD, _model_line),
    "inference": (_inference, _MODEL_HEAD, _model_line),
    "losses": (
        _losses,
        f"{'':{_WIDTH}}{'':>7}{'MindSpore ms':>13}{'PyTorch ms':>11}{'ratio':>8}{'spread':>15}",
        _ratio_line("mindspore_s", "torch_s", digits=2, factor=1e3),
    ),
    "data": (
        _data,
        f"{'images a second':{_WIDTH}}{'workers':>7}{'ours':>13}{'PyTorch':>11}{'speed-up':>9}{'spread':>14}",
        _data_line,
    ),
    "ranking": (
        _ranking,
        f"{'':{_WIDTH}}{'':>7}{'ours s':>13}{'argsort s':>11}{'ratio':>8}{'spread':>15}",
        _ratio_line("ours_s", "argsort_s"),
    ),
    "corruptions": (
        _corruptions,
        f"{'':{_WIDTH}}{'':>7}{'ms a picture':>13}",
        lambda name, row: f"{name:{_WIDTH}}{'':7}{row['ms_per_picture']:13.2f}",
    ),
    KERNELS: (
        _kernels,
        f"{'a training step':{_WIDTH}}{'':>7}{'without s':>13}{'with s':>11}{'ratio':>8}{'spread':>15}",
        _ratio_line("without_s", "with_s"),
    ),
    LAUNCHES: (
        _launches,
        f"{'a step, on a stand-in':{_WIDTH}}{'images':>7}{'launches':>9}{'by name':>8}{'PyTorch':>8}{'copies':>8}"
        f"{'waits':>8}{'allocations':>12}{'peak GiB':>9}{'first s':>8}",
        _launch_line,
    ),
    MEMORY: (
        _memory,
        f"{'a training step':{_WIDTH}}{'':>7}{'steps':>13}{'kB a step':>11}{'GiB at last':>13}",
        _memory_line,
    ),
}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("mindspore", "torch", "torchvision", "numpy")}


if __name__ == "__main__":
    run(main)
