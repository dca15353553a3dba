"""Count the calls of a training step, or of an inference, on a stand-in, and time its host. Import it after
`runtime.set_up`."""

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import mindspore as ms
import numpy as np

from ms_vireid.config import Config
from ms_vireid.devices import runtime
from ms_vireid.devices.replaceable import title
from ms_vireid.engine.train_step import build_step, loss_scaler
from ms_vireid.inference.features import FeatureExtractor
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import build_model
from ms_vireid.optimizers import build_optimizer
from ms_vireid.programs import graph
from ms_vireid.programs.cuda import build
from ms_vireid.programs.program import choose
from parity.stand_in import DEVICES
from parity.stand_in.counts import calls, count
from parity.stand_in.own import telling

SETTLING, COUNTED = 20, 4  # steps; an Ascend takes memory by the page, the last ones within a dozen steps
QUEUED, TIMED = 10, 6  # steps of a queue, and how many are timed


def count_steps(device: str, config: Config, stage: int, without: str) -> dict:
    """Count the first step, warm up, and count several steps queued as in training, on the device's stand-in.

    without: the type of a cell whose replacement is left out; "" for none."""
    if without:
        table = graph.TABLES[device]
        for key in [key for key in table if title(key) == without]:
            del table[key]
    model = build_model(config).set_train()
    optimizer = build_optimizer(model, config)
    loss = StageLoss(config.stages[stage].losses, config.train.num_instances)
    amp = config.train.amp
    if config.train.program == "cuda":
        _tell_tensors()
    program = choose(config.train.program, amp)
    step = build_step(model, loss, optimizer, program, config.optimizer.clip_norm, loss_scaler(amp))
    batch = 2 * config.train.num_identities * config.train.num_instances
    images = np.zeros((batch, 3, *config.data.image_size), np.float32)
    labels = np.zeros(batch, np.int32)
    rates = [config.optimizer.lr] * len(optimizer.groups)

    def queue() -> None:
        step(images, labels, 0, 0.0, optimizer.scalars(1, rates))

    return _counted(device, queue, program.compiled) | {"batch": batch}


def count_features(device: str, config: Config, pictures: int) -> dict:
    """Count and time batches of inference in the same way."""
    model = build_model(config).set_train(False)
    program = choose(config.train.program)
    program.prepare(model)
    extractor = FeatureExtractor(model, program, config.data.image_size, pictures)
    images = np.zeros((pictures, 3, *config.data.image_size), np.float32)
    found = _counted(device, lambda: extractor.queue(images, "visible"), program.compiled)
    return found | {"batch": pictures}


def _counted(device: str, queue: Callable[[], None], compiled: bool) -> dict:
    """queue: puts a step into the device's queue. compiled: whether it is one graph."""

    def asked(steps: int) -> Counter[str]:
        """Count the calls of so many steps and of waiting for the last."""
        before = calls()
        for _ in range(steps):
            queue()
        ms.runtime.synchronize()
        return calls() - before

    begun = time.perf_counter()
    asked(1)
    first = time.perf_counter() - begun
    asked(SETTLING)
    of_steps, of_one = asked(1 + COUNTED), asked(1)
    of_steps.subtract(of_one)
    a_step = {call: made / COUNTED for call, made in of_steps.items() if made}
    return (
        asdict(count(DEVICES[device], a_step))
        | {
            "by_name": sum(made for call, made in a_step.items() if call.startswith("by name: ")),
            "calls": a_step,
            "peak_gib": ms.runtime.max_memory_allocated() / 2**30,
            "first_s": first,
        }
        | _host(queue, compiled)
    )


def _host(queue: Callable[[], None], compiled: bool) -> dict:
    """Time the host for a step among others in the queue, with its threads bound as in training and evaluation: median
    and least ms of wall, and ms of a core."""
    walls, cores = [], []
    with runtime.bound_threads(compiled):
        for _ in range(TIMED):
            wall, core = time.perf_counter(), time.process_time()
            for _ in range(QUEUED):
                queue()
            ms.runtime.synchronize()
            walls.append(1e3 * (time.perf_counter() - wall) / QUEUED)
            cores.append(1e3 * (time.process_time() - core) / QUEUED)
    return {"host_ms": statistics.median(walls), "host_least_ms": min(walls), "core_ms": statistics.median(cores)}


def _tell_tensors() -> None:
    """Have this project's kernels counted with their tensors: call it before the program is made."""
    library = telling(build.launcher(), Path(tempfile.mkdtemp()))
    build.launcher = lambda: library
