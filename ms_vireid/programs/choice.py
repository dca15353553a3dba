"""Which program computes a model: the CPU's kernels, MindSpore's operators one by one, or a compiled graph of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import mindspore as ms
from mindspore import nn
from tqdm import tqdm

from ms_vireid.config import TrainConfig
from ms_vireid.devices import runtime
from ms_vireid.models.base import ReIDModel

PROGRAMS = ("kernels", "operators", "graph")


def training_program(config: TrainConfig) -> str:
    """The one that `train.mode`, `train.kernels` and `train.amp` ask for on this device.

    train.mode=auto compiles where work is queued to a device: operator by operator a GPU waits for Python. On a CPU the
    kernels are faster. MindSpore's cache of compiled graphs is left off: from it a second process begins in 1 s instead
    of 17, and its loss is not a number (a small PMT, MindSpore 2.10, CPU).
    """
    on_cpu = ms.get_context("device_target") == "CPU"
    if config.mode == "jit" or (config.mode == "auto" and not on_cpu):
        return "graph"
    return "kernels" if on_cpu and config.kernels == "auto" and not config.amp else "operators"


def inference_program(kernels: str) -> str:
    """The same for a trained model. kernels: "auto" or "off", as `train.kernels`."""
    if ms.get_context("device_target") != "CPU":
        return "graph"
    return "kernels" if kernels == "auto" else "operators"


def run_by(program: str, model: ReIDModel, *others: nn.Cell) -> None:
    """Have a model whose weights are in place, and its optimiser, computed by a program; again after other weights."""
    if program == "kernels":
        from ms_vireid.programs.kernels import install  # Numba and its compiler: a second

        install(model, *others)
    elif any(isinstance(part, nn.Conv2d) for _, part in model.cells_and_names()):
        runtime.cap_convolutions()


@contextmanager
def announced(what: str) -> Iterator[None]:
    """A block that compiles `what` and runs it for the first time."""
    tqdm.write(f"compiling {what} ...")
    begun = time.perf_counter()
    yield
    tqdm.write(f"compiled {what} in {time.perf_counter() - begun:.0f} s")
