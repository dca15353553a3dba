"""The benchmark's sections in which models and losses work: MindSpore beside PyTorch, and with and without a kernel.

Each side works in a process of its own, both from the same weights on the same batches, in turn.
"""

import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ms_vireid.command.errors import InputError
from parity.measure import workers
from parity.measure.workers import BOUND, CLASSES, FRAMEWORKS, MODELS, WINOGRAD, Work

Rows = Iterator[tuple[str, dict]]

AGREEMENT = 1e-2  # of the first results, relative: less would not be the same work
LOSSES = ("hard triplet", "intra", "global", "wrt", "hct", "msel", "msel cosine", "dcl dynamic", "ia", "ma")
# Rows of bound threads, and of the cells and optimisers that have kernels: the model and what it goes without.
KERNEL_ROWS = {
    f"{model.split()[0]}, {kernel}": (model, kernel)
    for model, kernels in zip(
        MODELS,
        (
            (BOUND, "GELU", "LayerNorm", "Dense", "Attention", "Dropout", "DropPath", "AdamW"),
            (BOUND, "Conv2d", WINOGRAD, "ResNet", "Bottleneck", "NonLocal", "BatchNorm2d", "MaxPool2d", "GeM", "SGD"),
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
    for name in names:
        work = _train_step(MODELS[name], options)
        yield name, {"batch": 2 * options.identities * options.instances} | _from_same_weights(work, options.repeats)


def inference(names: Sequence[str], options: Namespace) -> Rows:
    for name in names:
        config, overrides, _ = MODELS[name]
        overrides = (*overrides, *CLASSES, *options.overrides)
        work = Work("inference", config, overrides, options.device, images=options.images)
        yield name, {"batch": options.images} | _from_same_weights(work, options.repeats)


def losses(names: Sequence[str], options: Namespace) -> Rows:
    for name in names:
        work = Work("loss", "pmt/sysu.yaml", tuple(options.overrides), options.device, loss=name)
        yield name, side_by_side(workers.sides(work), 4 * options.repeats)


def kernels(names: Sequence[str], options: Namespace) -> Rows:
    """A training step without the kernel of one type of cell, or without bound threads, beside that with all."""
    for name in names:
        model, kernel = KERNEL_ROWS[name]
        work = _train_step(MODELS[model], options)
        row = _from_same_weights(
            work, options.repeats, [("mindspore", replace(work, without=kernel)), ("mindspore", work)]
        )
        yield name, {"without_s": row.pop("mindspore_s"), "with_s": row.pop("torch_s"), **row}


def memory(names: Sequence[str], options: Namespace) -> Rows:
    """By how much a training step lets the process's memory grow: the slope over the second half of many."""
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
    return Work("train_step", config, (*overrides, *batch, *CLASSES, *options.overrides), options.device, stage=stage)


def _from_same_weights(work: Work, repeats: int, sides: Sequence[tuple[str, Work]] = ()) -> dict:
    """`sides`: default: both frameworks with the same work."""
    with tempfile.TemporaryDirectory() as folder:
        workers.make_weights(replace(work, folder=folder))
        return side_by_side(
            [(framework, replace(own, folder=folder)) for framework, own in sides or workers.sides(work)], repeats
        )


def side_by_side(sides: Sequence[tuple[str, Work]], repeats: int) -> dict:
    """Start both, a framework with its work each, see that they compute the same, and have them work in turn."""
    both = [workers.Worker(*side) for side in sides]
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
    seconds = np.array([[worker.run() for worker in both] for _ in range(repeats)])
    return ratio(*seconds.T) | {
        "first_s": {framework: worker.first for framework, worker in zip(FRAMEWORKS, both, strict=True)},
        "peak_gib": {framework: worker.close() for framework, worker in zip(FRAMEWORKS, both, strict=True)},
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict:
    """That of the medians of seconds; the spread is that of the repeats, each beside its neighbour."""
    pairs = [float(a / b) for a, b in zip(ours, theirs, strict=True)]
    medians = float(np.median(ours)), float(np.median(theirs))
    return {
        "mindspore_s": medians[0],
        "torch_s": medians[1],
        "ratio": medians[0] / medians[1],
        "spread": [min(pairs), max(pairs)],
    }
