"""Count the calls of a training step on a stand-in, and time its host. Import it after `runtime.set_up`."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

import mindspore as ms
import numpy as np

from ms_vireid.backends.choosing import choose
from ms_vireid.config import Config
from ms_vireid.devices import runtime
from ms_vireid.engine.train_step import build_step, loss_scaler
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import build_model
from ms_vireid.optimizers.build import build_optimizer
from parity.stand_in import DEVICES
from parity.stand_in.counts import count, functions

SETTLING, COUNTED = 20, 4  # steps; an Ascend takes memory by the page, the last ones within a dozen steps
QUEUED, TIMED = 10, 6  # steps of a queue, and how many are timed


def count_steps(device: str, config: Config, stage: int) -> dict:
    """Count the first step, warm up, and count several steps queued as in training, on the device's stand-in."""
    model = build_model(config).set_train()
    optimizer = build_optimizer(model, config)
    loss = StageLoss(config.stages[stage].losses, config.train.num_instances)
    amp = config.train.amp
    backend = choose(config.train.backend, amp)
    step = build_step(model, loss, optimizer, backend, config.optimizer.clip_norm, loss_scaler(amp))
    batch = 2 * config.train.num_identities * config.train.num_instances
    images = np.zeros((batch, 3, *config.data.image_size), np.float32)
    labels = np.zeros(batch, np.int32)
    rates = [config.optimizer.lr] * len(optimizer.groups)

    def queue() -> None:
        step(images, labels, 0, 0.0, optimizer.scalars(1, rates))

    def asked(steps: int) -> Counter[str]:
        """Count the calls of so many steps and of waiting for the last."""
        before = functions()
        for _ in range(steps):
            queue()
        ms.runtime.synchronize()
        return functions() - before

    begun = time.perf_counter()
    asked(1)
    first = time.perf_counter() - begun
    asked(SETTLING)
    of_steps, of_one = asked(1 + COUNTED), asked(1)
    of_steps.subtract(of_one)
    a_step = {call: made / COUNTED for call, made in of_steps.items() if made}
    return asdict(count(DEVICES[device], a_step)) | {
        "batch": batch,
        "by_name": sum(made for call, made in a_step.items() if call.startswith("by name: ")),
        "peak_gib": ms.runtime.max_memory_allocated() / 2**30,
        "first_s": first,
        "host_ms": _host_ms(queue, backend.compiled),
    }


def _host_ms(queue: Callable[[], None], compiled: bool) -> float:
    """Return the host's median ms for a step among others in the queue, its threads bound as in training. compiled:
    whether the step is one graph."""
    milliseconds = []
    with runtime.bound_threads(compiled):
        for _ in range(TIMED):
            begun = time.perf_counter()
            for _ in range(QUEUED):
                queue()
            ms.runtime.synchronize()
            milliseconds.append(1e3 * (time.perf_counter() - begun) / QUEUED)
    return statistics.median(milliseconds)
