"""The choice of a backend."""

from importlib import import_module

import mindspore as ms

from ms_vireid.backends.backend import Backend
from ms_vireid.command.arguments import require_choice
from ms_vireid.command.errors import DeviceError, InputError
from ms_vireid.command.names import BACKENDS
from ms_vireid.command.printing import say

# The backends of each device.
OF_DEVICE = {"CPU": ("numba", "eager", "graph"), "GPU": ("eager", "graph", "cuda"), "Ascend": ("eager", "graph")}


def backend_named(name: str, amp: str | bool = False) -> Backend:
    """Make one of `OF_DEVICE`, for the current device. Imports it now: `numba` and `cuda` need a compiler."""
    return getattr(import_module(f"ms_vireid.backends.{name}"), name.capitalize())(amp)


def choose(name: str, amp: str | bool = False, option: str = "train.backend=") -> Backend:
    """Make the backend that `train.backend`, or another `option`, names for the current device.

    auto: on a CPU `numba`, which is faster but computes in float32 alone, or `eager` with amp; on a GPU `cuda`, or
    `graph` where its kernels cannot be compiled, which a note says; on an Ascend `graph`.

    MindSpore's cache of compiled graphs stays off: with it a second process starts in 1 s instead of 17, and its loss
    is NaN (a small PMT, MindSpore 2.10, CPU).

    Raises:
        InputError: no such backend; numba on another device, or with mixed precision; bfloat16 on another device than
            an Ascend; cuda on another device than a GPU, or without a compiler.
    """
    require_choice("backend", name, ("auto", *BACKENDS))
    device = ms.get_context("device_target")
    numba = device == "CPU" and not amp
    if amp == "bfloat16" and device != "Ascend":
        raise InputError(f"train.amp=bfloat16: MindSpore does not compute it on a {device}; give train.amp=float16")
    if name == "auto" and device == "GPU":
        try:
            return backend_named("cuda", amp)
        except DeviceError as problem:
            say(f"note: no CUDA kernels, slower: {problem}; {problem.remedy}")
    if name == "auto":
        name = "numba" if numba else "eager" if device == "CPU" else "graph"
    if name == "numba" and not numba:
        where = "on a CPU" if option != "train.backend=" else "on a CPU and without train.amp"
        raise InputError(f"{option}numba: its kernels compute {where}; leave it at auto")
    if name == "cuda" and device != "GPU":
        raise InputError(f"{option}cuda: this project's CUDA kernels compute on a GPU; leave it at auto")
    try:
        return backend_named(name, amp)
    except DeviceError as problem:
        raise InputError(f"{option}{name}: {problem}; {problem.remedy}, or use backend graph") from None
