"""One framework's side of the benchmark, in a process of its own: it is told to do its work once, and says how long
that took. PyTorch's and MindSpore's oneDNN read the same environment variables, so that they cannot share a process."""

import itertools
import multiprocessing
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ms_vireid.command.errors import InputError
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.data.randomness import step_key
from ms_vireid.devices import runtime
from ms_vireid.devices.memory import peak_bytes, resident_bytes

FRAMEWORKS = ("mindspore", "torch")
# Of full size: configuration, overrides, and the stage of the recipe whose losses are taken.
MODELS = {
    "PMT ViT-B/16 256x128": ("pmt/sysu.yaml", (), 1),
    "AGW ResNet-50 288x144": ("agw/sysu.yaml", (), 0),
    "MUN ResNet-50 288x144": ("mun/sysu.yaml", (), 0),
}
BOUND = "bound threads"  # by `runtime.bound_threads`
_STEPS = 1000  # of the run that a training step is taken to be part of
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Work:
    """What both frameworks do.

    kind: "train_step" (forward, all losses, backward, update), "inference" (features of a batch), "loss" (value and
        gradient of one) or "weights" (makes those that both begin with).
    config: file under configs/, with its overrides. stage: of the recipe, from 0. images: of an inference's batch.
    loss: of `parity.equations`, by name. folder: where the weights are.
    without: what MindSpore's side goes without: its `BOUND` threads, or the kernel of a type of cell, by name.
    """

    kind: str
    config: str
    overrides: tuple[str, ...]
    device: str
    folder: str
    stage: int = 0
    images: int = 0
    loss: str = ""
    without: str = ""

    def load(self) -> Config:
        """Raises InputError: a configuration that PyTorch's side does not have."""
        config = load_config(CONFIG_ROOT / self.config, list(self.overrides))
        if config.train.amp:
            raise InputError(
                "train.amp=true: PyTorch's side computes in float32 alone; --only launches has rows with it"
            )
        return config


@dataclass
class Worker:
    """A running process. first: seconds from its start to the end of its first piece of work, imports included."""

    framework: str
    process: multiprocessing.Process
    connection: Connection
    first: float = 0.0
    value: np.ndarray | None = None
    seconds: list[float] = field(default_factory=list)

    def run(self) -> float:
        """Have the work done once; seconds as the worker measured them. Raises InputError as `ask` does."""
        self.seconds.append(self.ask("run"))
        return self.seconds[-1]

    def resident(self) -> int:
        """Bytes of resident memory."""
        return self.ask("resident")

    def close(self) -> float:
        """End the process; its peak resident memory in GiB."""
        peak = self.ask("end")
        self.process.join()
        return peak

    def ask(self, what: str | None = None) -> Any:
        """Tell the process what to do, if anything; its next answer.

        Raises:
            InputError: it has ended, for example for lack of memory, or reports a mistake in what it was asked.
        """
        try:
            if what:
                self.connection.send(what)
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise InputError(
                f"{self.framework}: the process has ended with {self.process.exitcode} (-9: killed for lack of "
                "memory); try smaller batches (--identities, --instances, --images)"
            ) from None
        if isinstance(answer, InputError):
            raise answer
        return answer


def start(framework: str, work: Work) -> Worker:
    """A process that has done its work once; `value` is what came out."""
    begun = time.perf_counter()
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(theirs, framework, work), daemon=True)
    process.start()
    theirs.close()
    worker = Worker(framework, process, ours)
    worker.value = worker.ask()
    worker.first = time.perf_counter() - begun
    return worker


def sides(work: Work) -> list[tuple[str, Work]]:
    """Both frameworks with the same work."""
    return [(framework, work) for framework in FRAMEWORKS]


def make_weights(work: Work) -> None:
    """Write the weights that both frameworks begin with into `work.folder`, in a process that imports both."""
    start("weights", work).close()


def _serve(connection: Connection, framework: str, work: Work) -> None:
    try:
        do = _SIDES[framework](work)
        value = do()
    except InputError as error:
        connection.send(error)
        return
    connection.send(value)
    # As in training and evaluation, from the second item on.
    bound = framework == "mindspore" and work.load().train.mode != "jit" and work.without != BOUND
    with runtime.bound_threads() if bound else nullcontext():
        while (asked := connection.recv()) != "end":
            if asked == "resident":
                connection.send(resident_bytes())
                continue
            begun = time.perf_counter()
            do()
            connection.send(time.perf_counter() - begun)
    connection.send(peak_bytes() / 2**30)


# --- what both do -----------------------------------------------------------------------------------------------------


def _batch(work: Work, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [N, 3, H, W] as noise, which costs what pictures do, and labels int32 [N]."""
    identities, instances = config.train.num_identities, config.train.num_instances
    labels = np.tile(np.repeat(np.arange(identities, dtype=np.int32), instances), 2)
    count = work.images or len(labels)
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 3, *config.data.image_size)).astype(np.float32), labels


def _rows(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """A loss's features float32 [2PK, C] (three modalities: [3, PK, C]) and labels, with the papers' P and K."""
    from parity import equations

    if work.loss in equations.LOSSES:
        return equations.random_batch(8, 4, 768, seed=9, identity_spread=0.1)
    return equations.modality_batch(8, 4, 2048, seed=9, identity_spread=0.1), np.zeros(0, np.int32)


def _loss_of(work: Work, package) -> Callable:
    """The loss as a function of features and labels."""
    from parity import equations

    if work.loss in equations.LOSSES:
        loss = equations.LOSSES[work.loss]
        built = loss.build(package, 4)
        return lambda rows, labels: built(rows, labels, *loss.extra)
    built = equations.MODALITY_LOSSES[work.loss].build(package, 4)
    return lambda rows, _labels: built(rows[0], rows[1], rows[2])


def _training(train_step: Callable[[int, float], np.ndarray]) -> Callable[[], np.ndarray]:
    """One step of training after another, with their loss terms; `train_step` takes its number, from 1, and how far the
    run is."""
    numbers = itertools.count(1)

    def step() -> np.ndarray:
        number = next(numbers)
        return train_step(number, (number - 1) / _STEPS)

    return step


# --- MindSpore --------------------------------------------------------------------------------------------------------


def _weights_side(work: Work) -> Callable:
    config = work.load()
    runtime.set_up("CPU")
    from ms_vireid.models import build_model
    from parity.mapping import counters, twins

    def make():
        pairs = twins(build_model(config))
        values = {twin.name: twin.parameter.asnumpy() for twin in pairs}
        np.savez(Path(work.folder) / "mindspore.npz", **values)
        torch_values = {twin.torch_name: twin.to_torch(values[twin.name]) for twin in pairs}
        np.savez(Path(work.folder) / "torch.npz", **torch_values, **dict.fromkeys(counters(pairs), np.array(0)))

    return make


def _mindspore_side(work: Work) -> Callable:
    config = work.load()
    runtime.set_up(work.device)
    import mindspore as ms

    if work.kind == "loss":
        from ms_vireid import losses

        rows, labels = _rows(work)
        value_and_gradient = ms.value_and_grad(_loss_of(work, losses), 0)
        inputs = ms.Tensor(rows), ms.Tensor(labels)

        def loss():
            value, gradient = value_and_gradient(*inputs)
            gradient.asnumpy()
            return value.asnumpy()

        return loss

    from ms_vireid.engine.optimizer import build_optimizer
    from ms_vireid.engine.train_step import StageLoss, TrainStep
    from ms_vireid.inference.features import features_of
    from ms_vireid.models import build_model
    from ms_vireid.programs.choice import run_by, training_program

    model = build_model(config)
    program = training_program(config.train)
    if work.without and work.without != BOUND:
        from ms_vireid.programs.kernels.install import KERNELS

        del KERNELS[next(kind for kind in KERNELS if kind.__name__ == work.without)]
    weights = np.load(Path(work.folder) / "mindspore.npz")
    for parameter in model.get_parameters():
        parameter.set_data(ms.Tensor(weights[parameter.name]))
    images, labels = _batch(work, config)
    if work.kind == "inference":
        model.set_train(False)
        run_by(program, model)
        return lambda: features_of(model, images, "visible", len(images))

    model.set_train()
    optimizer = build_optimizer(model, config)
    run_by(program, model, optimizer)
    stage = StageLoss(config.stages[work.stage].losses, config.train.num_instances)
    train_step = TrainStep(model, stage, optimizer, program == "graph")
    inputs = images, labels, step_key(0, 0)
    rates = [config.optimizer.lr] * len(optimizer.groups)
    return _training(lambda number, progress: train_step(*inputs, progress, optimizer.scalars(number, rates)).asnumpy())


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def _torch_side(work: Work) -> Callable:
    import torch

    device = torch.device("cuda" if work.device == "GPU" else "cpu")
    config = work.load()

    def on_device(value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(value)).to(device)

    if work.kind == "loss":
        from torch_ref import losses

        rows, labels = _rows(work)
        features, labels = on_device(rows).requires_grad_(), on_device(labels)
        of = _loss_of(work, losses)

        def loss():
            value = of(features, labels)
            torch.autograd.grad(value, features)[0].cpu()
            return value.detach().cpu().numpy()

        return loss

    from torch_ref.engine.optimizer import build_optimizer
    from torch_ref.engine.train_step import StageLoss, TrainStep
    from torch_ref.models import build_model

    model = build_model(config).to(device)
    weights = np.load(Path(work.folder) / "torch.npz")
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    images, labels = _batch(work, config)
    if work.kind == "inference":
        model.eval()

        def features():
            with torch.no_grad():
                return model(on_device(images), "visible").cpu().numpy()

        return features

    model.train()
    optimizer = build_optimizer(model, config)
    stage = StageLoss(config.stages[work.stage].losses, config.train.num_instances)
    train_step = TrainStep(model, stage, optimizer)
    inputs = on_device(images), on_device(labels), on_device(step_key(0, 0))
    rates = [config.optimizer.lr] * len(optimizer.groups)
    return _training(lambda _number, progress: np.array(list(train_step(*inputs, progress, rates).values())))


_SIDES = {"mindspore": _mindspore_side, "torch": _torch_side, "weights": _weights_side}
