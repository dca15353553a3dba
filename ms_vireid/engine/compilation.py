"""What is compiled into a graph, and what the user is told while that is done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import mindspore as ms
from tqdm import tqdm


def is_compiled(mode: str) -> bool:
    """Whether a training step or an inference is compiled: `mode` as of `train.mode`.

    "auto" compiles where kernels are queued to a device: operator by operator a GPU waits for Python. On a CPU the
    kernels of PyNative are faster. MindSpore's cache of compiled graphs is left off: from it a second process begins in
    1 s instead of 17, and its loss is not a number (a small PMT, MindSpore 2.10, CPU).
    """
    return mode == "jit" or (mode == "auto" and ms.get_context("device_target") != "CPU")


@contextmanager
def announced(what: str) -> Iterator[None]:
    """A block that compiles `what` and runs it for the first time."""
    tqdm.write(f"compiling {what} ...")
    begun = time.perf_counter()
    yield
    tqdm.write(f"compiled {what} in {time.perf_counter() - begun:.0f} s")
