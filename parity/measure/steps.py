"""The benchmark's sections of models: MindSpore beside PyTorch, and with and without a kernel.

Each side has its own process; both take turns, with the same weights and batches.
"""

import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ms_vireid.command.errors import InputError
from parity.measure import workers
from parity.measure.workers import BOUND, CLASSES, FRAMEWORKS, MODELS, WINOGRAD, Work, Worker

Rows = Iterator[tuple[str, dict]]
Sides = Sequence[tuple[str, Work]]  # a framework with its work each

TUNED = ", PyTorch tuned"  # after a row's name
AGREEMENT = 1e-2  # of the first results, relative: less would not be the same work
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


def kernels(names: Sequence[str], options: Namespace) -> Rows:
    """Time a training step without one kernel, or without bound threads, beside one with all."""
    works = {}
    for name in names:
        model, kernel = KERNEL_ROWS[name]
        work = _train_step(MODELS[model], options)
        works[name] = [("mindspore", replace(work, without=kernel)), ("mindspore", work)]
    for name, row in _compared(works, options):
        yield name, {"without_s": row.pop("mindspore_s"), "with_s": row.pop("torch_s"), **row}


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


def _compared(works: Mapping[str, Sides], options: Namespace) -> Rows:
    for name, sides in works.items():
        yield name, measure(sides[0][1], start(sides), options.repeats)


def start(sides: Sides) -> list[Worker]:
    """Start both sides' workers in turn, each of which does its work once. The first writes the weights for both."""
    with tempfile.TemporaryDirectory() as folder:
        return [Worker(framework, replace(work, folder=folder)) for framework, work in sides]


def measure(work: Work, both: Sequence[Worker], repeats: int) -> dict:
    """Check that two workers have computed the same, and time them in turn; the first does `work`."""
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
