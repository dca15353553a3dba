"""The benchmark's sections of models: MindSpore beside PyTorch, each in a process of its own.

Both take turns, with the same weights and batches.
"""

import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ms_vireid.command.errors import InputError
from parity.measure.work import CLASSES, MODELS, Work
from parity.measure.workers import FRAMEWORKS, Worker

Rows = Iterator[tuple[str, dict]]

TUNED = ", PyTorch tuned"  # after a row's name
AGREEMENT = 1e-2  # of the first results, relative: less would not be the same work


def rows(kind: str, names: Sequence[str], options: Namespace) -> Rows:
    """MindSpore beside each PyTorch that is asked for. kind: "train_step" or "inference"."""
    batch = f"train.num_identities={options.identities}", f"train.num_instances={options.instances}"
    images = options.images if kind == "inference" else 2 * options.identities * options.instances
    for name in names:
        config, overrides, stage = MODELS[name]
        overrides = (*overrides, *batch, *CLASSES, *options.overrides)
        work = Work(kind, config, overrides, options.device, stage=stage, images=images, steps=options.steps)
        for tuned in (torch == "tuned" for torch in options.torch):
            yield name + TUNED * tuned, {"batch": images} | measure(replace(work, tuned=tuned), options.repeats)


def measure(work: Work, repeats: int) -> dict:
    """Start both sides' workers in turn, check that they have computed the same, and time them in turn.

    Raises:
        InputError: their results differ, or one cannot do the work.
    """
    with tempfile.TemporaryDirectory() as folder:  # with the weights, which MindSpore's writes
        workers = [Worker(framework, replace(work, folder=folder)) for framework in FRAMEWORKS]
    ours, theirs = (np.asarray(worker.value, np.float64) for worker in workers)
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not error <= AGREEMENT:
        raise InputError(
            f"{work.kind} of {work.config}: both sides' first results differ by {error:.1e} of their size; "
            "python parity/report.py shows where"
        )
    for worker in workers:  # caches, compiled kernels
        worker.run()
    seconds = np.array([[worker.run() for worker in workers] for _ in range(repeats)])
    peaks = [worker.memory() for worker in workers]
    row = ratio(*seconds.T) | {
        "steps": work.steps,
        "difference": error,
        "first_s": {worker.framework: worker.first for worker in workers},
        "peak_gib": {worker.framework: found[0] for worker, found in zip(workers, peaks, strict=True)},
        "held_gib": {worker.framework: found[1] for worker, found in zip(workers, peaks, strict=True)},
    }
    for worker in workers:
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
