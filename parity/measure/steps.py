"""The benchmark's sections of models and losses: MindSpore beside PyTorch, and with and without a kernel.

Each side has its own process; both take turns, with the same weights and batches.
"""

import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from ms_vireid.command.errors import InputError
from parity.measure import workers
from parity.measure.workers import BOUND, CLASSES, FRAMEWORKS, MODELS, WINOGRAD, Work, Worker

Rows = Iterator[tuple[str, dict]]
Sides = Sequence[tuple[str, Work]]  # a framework with its work each

TUNED = ", PyTorch tuned"  # after a row's name
AGREEMENT = 1e-2  # of the first results, relative: less would not be the same work
LOSSES = ("hard triplet", "intra", "global", "wrt", "hct", "msel", "msel cosine", "dcl dynamic", "ia", "ma")
# Rows of bound threads, and of the cells and optimisers that have kernels: the model and what it goes without.
KERNEL_ROWS = {
    f"{model.split()[0]}, {kernel}": (model, kernel)
    for model, kernels in zip(
        MODELS,
        (
            (BOUND, "GELU", "LayerNorm", "Dense", "Attention", "Dropout", "DropPath", "AdamW"),
            (BOUND, "Conv2d", WINOGRAD, "ResNet", "Bottleneck", "NonLocal", "BatchNorm", "MaxPool2d", "GeM", "SGD"),
            ("IntraModalityLearner", "CrossModalityLearner"),
        ),
        strict=True,
    )
    for kernel in kernels
}
MEMORY_ROWS = {  # with their steps
    "PMT, demonstration": (("demo.yaml", (), 1), 2000),
    "MUN, demonstration": (("mun/demo.yaml", (), 0), 2000),
    **{name: (recipe, 60) for name, recipe in MODELS.items()},
}


def train_steps(names: Sequence[str], options: Namespace) -> Rows:
    batch = {"batch": 2 * options.identities * options.instances}
    works = {name: _train_step(MODELS[name], options) for name in names}
    return ((name, batch | row) for name, row in _compared(_beside_each(works, options), options))


def inference(names: Sequence[str], options: Namespace) -> Rows:
    works = {}
    for name in names:
        config, overrides, _ = MODELS[name]
        given = (*overrides, *CLASSES, *options.overrides), options.device
        works[name] = Work("inference", config, *given, images=options.images, steps=options.steps)
    rows = _compared(_beside_each(works, options), options)
    return ((name, {"batch": options.images} | row) for name, row in rows)


def losses(names: Sequence[str], options: Namespace) -> Rows:
    given = "loss", "pmt/sysu.yaml", tuple(options.overrides), options.device
    works = {name: workers.sides(Work(*given, loss=name, steps=options.steps)) for name in names}
    return _compared(works, options, 4 * options.repeats)


def kernels(names: Sequence[str], options: Namespace) -> Rows:
    """Time a training step without one kernel, or without bound threads, beside one with all."""
    works = {}
    for name in names:
        model, kernel = KERNEL_ROWS[name]
        work = _train_step(MODELS[model], options)
        works[name] = [("mindspore", replace(work, without=kernel)), ("mindspore", work)]
    for name, row in _compared(works, options):
        yield name, {"without_s": row.pop("mindspore_s"), "with_s": row.pop("torch_s"), **row}


def memory(names: Sequence[str], options: Namespace) -> Rows:
    """Measure how much a training step grows the process's memory: the slope over the second half of many."""
    for name in names:
        recipe, steps = MEMORY_ROWS[name]
        with tempfile.TemporaryDirectory() as folder:
            work = replace(_train_step(recipe, options), folder=folder)
            workers.make_weights(work)
            worker = workers.Worker("mindspore", work)
            resident = []
            for _ in range(steps):
                worker.run()
                resident.append(worker.resident())
            worker.close()
        later = np.array(resident[steps // 2 :], np.float64)
        slope = float(np.polyfit(np.arange(len(later)), later, 1)[0])
        yield name, {"steps": steps, "bytes_per_step": slope, "last_gib": resident[-1] / 2**30}


def _train_step(recipe: tuple[str, tuple[str, ...], int], options: Namespace) -> Work:
    config, overrides, stage = recipe
    batch = f"train.num_identities={options.identities}", f"train.num_instances={options.instances}"
    overrides = (*overrides, *batch, *CLASSES, *options.overrides)
    return Work("train_step", config, overrides, options.device, stage=stage, steps=options.steps)


def _beside_each(works: Mapping[str, Work], options: Namespace) -> dict[str, Sides]:
    """MindSpore beside each PyTorch that is asked for, rows one after the other."""
    return {
        name + TUNED * (kind == "tuned"): workers.sides(replace(work, tuned=kind == "tuned"))
        for name, work in works.items()
        for kind in options.torch
    }


def _compared(works: Mapping[str, Sides], options: Namespace, repeats: int | None = None) -> Rows:
    """Rows of both sides each. With `options.gate` all of them start here, side by side, to be measured one by one;
    without, each starts when the one before it has ended."""
    if options.gate:
        with ThreadPoolExecutor(max(len(works), 1)) as threads:
            started = iter(list(threads.map(lambda sides: start(sides, together=True), works.values())))
    else:
        started = map(start, works.values())
    return (
        (name, measure(works[name][0][1], both, repeats or options.repeats, bool(options.kernels)))
        for name, both in zip(works, started, strict=True)
    )


def start(sides: Sides, together: bool = False) -> list[Worker]:
    """Start both sides' workers, in turn or `together`, with the same weights; each does its work once."""
    with tempfile.TemporaryDirectory() as folder:
        sides = [(framework, replace(work, folder=folder)) for framework, work in sides]
        if sides[0][1].kind != "loss":
            workers.make_weights(sides[0][1])
        with ThreadPoolExecutor(len(sides) if together else 1) as threads:
            return list(threads.map(lambda side: Worker(*side), sides))


def measure(work: Work, both: Sequence[Worker], repeats: int, kernels: bool = False) -> dict:
    """Check that two workers have computed the same, and time them in turn; the first does `work`.

    kernels: the row also has what each has the device do.
    """
    ours, theirs = (np.asarray(worker.value, np.float64) for worker in both)
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not error <= AGREEMENT:
        raise InputError(
            f"{work.kind} of {work.config}: both sides' first results differ by {error:.1e} of their size; "
            "python parity/report.py shows where"
        )
    for worker in both:  # caches, compiled kernels
        worker.run()
    seconds = np.array([[worker.run() for worker in both] for _ in range(repeats)])
    peaks = {framework: worker.memory() for framework, worker in zip(FRAMEWORKS, both, strict=True)}
    row = ratio(*seconds.T) | {
        "steps": work.steps,
        "difference": error,
        "first_s": {framework: worker.first for framework, worker in zip(FRAMEWORKS, both, strict=True)},
        "peak_gib": {framework: given[0] for framework, given in peaks.items()},
        "held_gib": {framework: given[1] if len(given) > 1 else None for framework, given in peaks.items()},
    }
    if kernels:
        row["kernels"] = {framework: worker.kernels() for framework, worker in zip(FRAMEWORKS, both, strict=True)}
    for worker in both:
        worker.close()
    return row


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict:
    """Return the ratio of the medians of seconds; the spread is that of neighbouring repeats."""
    pairs = [float(a / b) for a, b in zip(ours, theirs, strict=True)]
    medians = float(np.median(ours)), float(np.median(theirs))
    return {
        "mindspore_s": medians[0],
        "torch_s": medians[1],
        "ratio": medians[0] / medians[1],
        "spread": [min(pairs), max(pairs)],
    }
