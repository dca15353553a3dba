"""MindSpore's side of the benchmark. Import it after `runtime.set_up`."""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager

import mindspore as ms
import numpy as np

from ms_vireid.backends.choosing import choose
from ms_vireid.data.batches import behind
from ms_vireid.data.randomness import step_key
from ms_vireid.devices import runtime
from ms_vireid.engine.train_step import build_step, loss_scaler
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import build_model
from ms_vireid.optimizers.build import build_optimizer
from ms_vireid.search.features import FeatureExtractor
from parity.mapping import counters, twins, values
from parity.measure.work import RUN_STEPS, WARM_UP, Work


def device_peaks() -> list[int]:
    """Return the peaks of allocated and reserved device memory in bytes; none on a CPU."""
    if ms.get_context("device_target") == "CPU":
        return []
    return [ms.runtime.max_memory_allocated(), ms.runtime.max_memory_reserved()]


def prepare(work: Work) -> Callable[[int], np.ndarray]:
    """Write the weights, and make a function that does the work so many times and returns the last result."""
    config = work.load()
    runtime.round_products(config.train.tf32)
    model = build_model(config)
    backend = choose(config.train.backend, config.train.amp)
    np.savez(work.weights, **values(model), **dict.fromkeys(counters(twins(model)), np.array(0)))
    images, labels = work.batch(config)
    if work.kind == "inference":
        model.set_train(False)
        backend.accelerate(model)
        extractor = FeatureExtractor(model, backend, config.data.image_size, len(images))

        def features(times: int) -> np.ndarray:
            for queued in behind((extractor.queue(images, "visible") for _ in range(times)), extractor.ahead):
                rows = queued.read()
            return rows

        return features

    model.set_train()
    optimizer = build_optimizer(model, config)
    stage = StageLoss(config.stages[work.stage].losses, config.train.num_instances)
    amp = config.train.amp
    train_step = build_step(model, stage, optimizer, backend, config.optimizer.clip_norm, loss_scaler(amp))
    rates = [WARM_UP * config.optimizer.lr] * len(optimizer.groups)
    numbers = itertools.count(1)

    def steps(times: int) -> np.ndarray:
        for number in itertools.islice(numbers, times):
            scalars = optimizer.scalars(number, rates)
            terms = train_step(images, labels, step_key(0, 0), (number - 1) / RUN_STEPS, scalars)
        return terms.asnumpy()

    return steps


def bound_threads(work: Work) -> AbstractContextManager:
    """Bind threads within the block as the work's backend has it."""
    train = work.load().train
    return runtime.bound_threads(choose(train.backend, train.amp).compiled)
