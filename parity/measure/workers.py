"""One framework's side of the benchmark, in a process of its own, which does its work when asked and says how long that
took. PyTorch's and MindSpore's oneDNN read the same environment variables, so that they cannot share a process."""

import itertools
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.data.batches import behind
from ms_vireid.data.randomness import step_key
from ms_vireid.devices import runtime
from ms_vireid.devices.memory import peak_bytes, resident_bytes
from parity import stand_in

if TYPE_CHECKING:
    import torch

FRAMEWORKS = ("mindspore", "torch")
# Of full size: configuration, overrides, and the stage of the recipe whose losses are taken.
MODELS = {
    "PMT ViT-B/16 256x128": ("pmt/sysu.yaml", (), 1),
    "AGW ResNet-50 288x144": ("agw/sysu.yaml", (), 0),
    "MUN ResNet-50 288x144": ("mun/sysu.yaml", (), 0),
}
CLASSES = ("model.num_classes=395",)
# What else a step can go without: threads bound by `runtime.bound_threads`, and convolutions by fewer multiplications.
BOUND, WINOGRAD = "bound threads", "Winograd"
_STEPS = 1000  # of the run that a training step is taken to be part of
_WARM_UP = 0.01  # of the learning rate: at the whole of it float16 soon overflows on noise


@dataclass(frozen=True)
class Work:
    """What both frameworks do.

    kind: "train_step" (forward, all losses, backward, update), "inference" (features of a batch), "loss" (value and
        gradient of one) or "weights" (makes those that both begin with).
    config: file under configs/, with its overrides. stage: of the recipe, from 0. images: of an inference's batch.
    loss: of `parity.equations`, by name. folder: where the weights are. steps: of a measurement, which waits for the
        end of the last alone.
    without: what MindSpore's side goes without: `BOUND`, `WINOGRAD`, or the kernel of a cell or optimiser, by its type.
    """

    kind: str
    config: str
    overrides: tuple[str, ...]
    device: str
    folder: str = ""
    stage: int = 0
    images: int = 0
    loss: str = ""
    without: str = ""
    steps: int = 1

    def load(self) -> Config:
        return load_config(CONFIG_ROOT / self.config, list(self.overrides))

    def weights(self, framework: str) -> Path:
        """The file of those that the framework begins with."""
        return Path(self.folder) / f"{framework}.npz"

    def batch(self, config: Config) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 [N, 3, H, W] as noise, which costs what pictures do, and labels int32 [N]."""
        identities, instances = config.train.num_identities, config.train.num_instances
        labels = np.tile(np.repeat(np.arange(identities, dtype=np.int32), instances), 2)
        count = self.images or len(labels)
        rng = np.random.default_rng(0)
        return rng.normal(size=(count, 3, *config.data.image_size)).astype(np.float32), labels

    def loss_of(self, losses: ModuleType) -> tuple[Callable, np.ndarray, np.ndarray]:
        """The loss as a function of features and labels, and both: float32 [2PK, C] (three modalities: [3, PK, C]) and
        int32 [2PK], with the papers' P and K."""
        from parity import equations

        if self.loss in equations.LOSSES:
            built, extra = equations.LOSSES[self.loss].build(losses, 4), equations.LOSSES[self.loss].extra
            batch = equations.random_batch(8, 4, 768, seed=9, identity_spread=0.1)
            return lambda rows, labels: built(rows, labels, *extra), *batch
        built = equations.MODALITY_LOSSES[self.loss].build(losses, 4)
        rows = equations.modality_batch(8, 4, 2048, seed=9, identity_spread=0.1)
        return lambda rows, _labels: built(rows[0], rows[1], rows[2]), rows, np.zeros(0, np.int32)


class Worker:
    """A process that has done its work once. value: what came out. first: the seconds that this took from the start of
    the process, imports included.

    Raises:
        InputError: the work cannot be done, or, here and later, the process has ended, as for want of memory.
    """

    def __init__(self, framework: str, work: Work):
        begun = time.perf_counter()
        self.framework = framework
        self.process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.value = self._ask(_begin, framework, work)
        self.first = time.perf_counter() - begun

    def run(self) -> float:
        """Have a measurement's steps done; seconds of one, as the process measured them."""
        return self._ask(_run)

    def kernels(self) -> dict:
        """What the device runs in a measurement's steps, as `device_kernels` has it."""
        return self._ask(_profiled, self.framework)

    def resident(self) -> int:
        """Bytes of resident memory."""
        return self._ask(resident_bytes)

    def memory(self) -> list[float]:
        """Peaks in GiB: of the device's memory that the framework has given out and that it holds; on a CPU the
        process's resident memory alone."""
        return [size / 2**30 for size in self._ask(_peaks, self.framework)]

    def close(self) -> None:
        """End the process."""
        self.process.shutdown()

    def _ask(self, function: Callable, *arguments: Any) -> Any:
        try:
            return self.process.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise InputError(
                f"{self.framework}: its process was killed, as happens for want of memory; try smaller batches "
                "(--identities, --instances, --images)"
            ) from None


def sides(work: Work) -> list[tuple[str, Work]]:
    """Both frameworks with the same work."""
    return [(framework, work) for framework in FRAMEWORKS]


def make_weights(work: Work) -> None:
    """Write the weights that both frameworks begin with into `work.folder`, in a process that imports both."""
    Worker("weights", work).close()


# Of a worker's process: its work, done as often as asked, of which the last result is returned; how often a measurement
# does it; and the block that binds its threads.
_do: Callable[[int], np.ndarray | None] | None = None
_steps = 1
_bound = ExitStack()


def _begin(framework: str, work: Work) -> np.ndarray | None:
    global _do, _steps
    _do, _steps = _SIDES[framework](work), work.steps
    value = _do(1)
    # As in training and evaluation, from the second item on.
    if framework == "mindspore" and work.load().train.program != "graph" and work.without != BOUND:
        _bound.enter_context(runtime.bound_threads())
    return value


def _run() -> float:
    begun = time.perf_counter()
    _do(_steps)
    return (time.perf_counter() - begun) / _steps


def _peaks(framework: str) -> list[int]:
    """Bytes, as `Worker.memory` has them."""
    if framework == "mindspore":
        import mindspore as ms

        if ms.get_context("device_target") != "CPU":
            return [ms.runtime.max_memory_allocated(), ms.runtime.max_memory_reserved()]
    elif framework == "torch":
        import torch

        if torch.cuda.is_initialized():
            return [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]
    return [peak_bytes()]


def _profiled(framework: str) -> dict:
    """By PyTorch's profiler, which sees what any library launches in this process."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.zeros(1, device="cuda")  # begins CUDA
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        _do(_steps)
        if framework == "mindspore":
            import mindspore as ms

            ms.runtime.synchronize()
        torch.cuda.synchronize()
    return device_kernels(profiler.profiler.kineto_results.events(), _steps)


def device_kernels(events: Iterable, steps: int) -> dict:
    """Of a profile's events those of the device: how many, the ms in which it computed or copied and the ms from the
    first to the last; and by name, the longest first, calls and microseconds; all of `steps` steps."""
    spans, kinds = [], {}
    for event in events:
        if "CUDA" in str(event.device_type()) and not event.is_user_annotation():
            calls, microseconds = kinds.get(event.name(), (0, 0.0))
            kinds[event.name()] = calls + 1, microseconds + event.duration_ns() / 1e3
            spans.append((event.start_ns(), event.start_ns() + event.duration_ns()))
    busy = last = 0
    for begin, end in sorted(spans):
        busy += max(0, end - max(begin, last))
        last = max(last, end)
    longest = sorted(kinds.items(), key=lambda kind: -kind[1][1])
    return {
        "steps": steps,
        "events": len(spans),
        "busy_ms": busy / 1e6,
        "span_ms": (last - min(spans)[0]) / 1e6 if spans else 0.0,
        "kernels_calls_us": [[name, calls, round(microseconds, 1)] for name, (calls, microseconds) in longest],
    }


def _weights_side(work: Work) -> Callable:
    config = work.load()
    runtime.set_up("CPU")
    from ms_vireid.models import build_model
    from parity.mapping import counters, twins

    def make(_times: int) -> None:
        pairs = twins(build_model(config))
        values = {twin.name: twin.parameter.asnumpy() for twin in pairs}
        np.savez(work.weights("mindspore"), **values)
        torch_values = {twin.torch_name: values[twin.name] for twin in pairs}
        np.savez(work.weights("torch"), **torch_values, **dict.fromkeys(counters(pairs), np.array(0)))

    return make


def _mindspore_side(work: Work) -> Callable:
    config = work.load()
    runtime.set_up(work.device)
    runtime.round_products(config.train.tf32)
    import mindspore as ms

    if work.kind == "loss":
        from ms_vireid import losses

        function, rows, labels = work.loss_of(losses)
        value_and_gradient = ms.value_and_grad(function, 0)
        inputs = ms.Tensor(rows), ms.Tensor(labels)

        def losses(times: int) -> np.ndarray:
            for _ in range(times):
                value, gradient = value_and_gradient(*inputs)
            gradient.asnumpy()
            return value.asnumpy()

        return losses

    from ms_vireid.engine.optimizer import build_optimizer
    from ms_vireid.engine.train_step import StageLoss, build_step, loss_scaler
    from ms_vireid.inference.features import FeatureExtractor
    from ms_vireid.models import build_model
    from ms_vireid.programs.kernels import table
    from ms_vireid.programs.program import choose
    from ms_vireid.programs.replacing import name_of

    model = build_model(config)
    program = choose(config.train.program, config.train.amp, config.train.recompute)
    if work.without == WINOGRAD:
        table.WINOGRAD = math.inf
    for key in [key for key in table.KERNELS if name_of(key) == work.without]:
        del table.KERNELS[key]
    weights = np.load(work.weights("mindspore"))
    for parameter in model.get_parameters():
        parameter.set_data(ms.Tensor(weights[parameter.name]))
    images, labels = work.batch(config)
    if work.kind == "inference":
        model.set_train(False)
        program.prepare(model)
        extractor = FeatureExtractor(model, program, config.data.image_size, len(images))

        def features(times: int) -> np.ndarray:
            for queued in behind((extractor.queue(images, "visible") for _ in range(times)), extractor.ahead):
                rows = queued.read()
            return rows

        return features

    model.set_train()
    optimizer = build_optimizer(model, config)
    stage = StageLoss(config.stages[work.stage].losses, config.train.num_instances)
    amp = config.train.amp
    train_step = build_step(model, stage, optimizer, program, config.optimizer.clip_norm, loss_scaler(amp))
    rates = [_WARM_UP * config.optimizer.lr] * len(optimizer.groups)
    numbers = itertools.count(1)

    def steps(times: int) -> np.ndarray:
        for number in itertools.islice(numbers, times):
            scalars = optimizer.scalars(number, rates)
            terms = train_step(images, labels, step_key(0, 0), (number - 1) / _STEPS, scalars)
        return terms.asnumpy()

    return steps


def _torch_side(work: Work) -> Callable:
    import torch

    from torch_ref.engine.device import round_products

    device = _torch_device(work.device)
    config = work.load()
    round_products(config.train.tf32)

    def on_device(value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(value)).to(device)

    if work.kind == "loss":
        from torch_ref import losses

        function, rows, labels = work.loss_of(losses)
        features, labels = on_device(rows).requires_grad_(), on_device(labels)

        def losses(times: int) -> np.ndarray:
            for _ in range(times):
                value = function(features, labels)
                (gradient,) = torch.autograd.grad(value, features)
            gradient.cpu()
            return value.detach().cpu().numpy()

        return losses

    from torch_ref.engine.optimizer import build_optimizer
    from torch_ref.engine.train_step import StageLoss, build_step, loss_scaler
    from torch_ref.models import build_model

    model = build_model(config).to(device)
    weights = np.load(work.weights("torch"))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    images, labels = work.batch(config)
    if work.kind == "inference":
        model.eval()

        @torch.inference_mode()
        def features(times: int) -> np.ndarray:
            for queued in behind((model(on_device(images), "visible") for _ in range(times)), 1):
                rows = queued.cpu().numpy()
            return rows

        return features

    model.train()
    optimizer = build_optimizer(model, config)
    stage = StageLoss(config.stages[work.stage].losses, config.train.num_instances)
    amp = config.train.amp
    clip_norm, scaler = config.optimizer.clip_norm, loss_scaler(amp, device) if amp else None
    train_step = build_step(model, stage, optimizer, amp, clip_norm, scaler)
    numbers = on_device(labels), on_device(step_key(0, 0))
    rates = [_WARM_UP * config.optimizer.lr] * len(optimizer.groups)
    done = itertools.count()

    def steps(times: int) -> np.ndarray:
        for number in itertools.islice(done, times):
            terms = train_step(on_device(images), *numbers, number / _STEPS, rates)
        return torch.stack(terms).cpu().numpy()

    return steps


def _torch_device(device: str) -> "torch.device":
    """Where PyTorch does the same work: beside a stand-in, and beside an Ascend, on the CPU.

    Raises:
        InputError: on a real GPU that PyTorch does not see.
    """
    import torch

    if device == "GPU" and not torch.cuda.is_available() and not stand_in.here():
        raise InputError("PyTorch sees no GPU: install its build for CUDA, or compare with --device CPU")
    return torch.device("cuda" if device == "GPU" and torch.cuda.is_available() else "cpu")


_SIDES = {"mindspore": _mindspore_side, "torch": _torch_side, "weights": _weights_side}
