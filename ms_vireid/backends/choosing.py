"""The choice of a backend."""

from importlib import import_module

import mindspore as ms

from ms_vireid.backends.backend import Backend
from ms_vireid.command.arguments import require_choice
from ms_vireid.command.errors import DeviceError, InputError
from ms_vireid.command.names import BACKENDS
from ms_vireid.command.printing import say

OF_DEVICE = {"CPU": ("numba", "eager", "graph"), "GPU": ("eager", "graph", "cuda"), "Ascend": ("eager", "graph")}
# What `auto` takes, and what else where that cannot be had.
PREFERRED = {"CPU": ("numba", "eager"), "GPU": ("cuda", "graph"), "Ascend": ("graph", "eager")}


def backend_named(name: str, amp: str | bool = False) -> Backend:
    """Make a backend for the current device. Raises DeviceError if a compiler is missing, or its folder."""
    package = f"ms_vireid.backends.{name}"
    try:
        module = import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise DeviceError(f"ms_vireid/backends/{name} is missing", "reinstall ms_vireid") from None
    return getattr(module, name.capitalize())(amp)


def choose(name: str, amp: str | bool = False, option: str = "train.backend=") -> Backend:
    """Make the backend that `train.backend`, or another `option`, names for the current device.

    auto: on a CPU `numba`, which is faster but computes in float32 alone, or `eager` with amp; on a GPU `cuda`; on an
    Ascend `graph`. Where that cannot be had, the second of `PREFERRED`, and a note says why.

    MindSpore's cache of compiled graphs stays off: with it a second process starts in 1 s instead of 17, and its loss
    is NaN (a small PMT, MindSpore 2.10, CPU).

    Raises:
        InputError: no such backend; numba on another device, or with mixed precision; bfloat16 on another device than
            an Ascend; cuda on another device than a GPU; numba or cuda where it cannot be had.
    """
    require_choice("backend", name, ("auto", *BACKENDS))
    device = ms.get_context("device_target")
    if amp == "bfloat16" and device != "Ascend":
        raise InputError(f"train.amp=bfloat16: MindSpore does not compute it on a {device}; give train.amp=float16")
    if name == "auto":
        preferred, other = PREFERRED[device]
        try:
            return backend_named(other if preferred == "numba" and amp else preferred, amp)
        except DeviceError as problem:
            say(f"note: backend {other}, slower than {preferred}: {problem}; {problem.remedy}")
            return backend_named(other, amp)
    if name == "numba" and (device != "CPU" or amp):
        where = "a CPU" if option != "train.backend=" else "a CPU without train.amp"
        raise InputError(f"{option}numba: its kernels need {where}; leave it at auto")
    if name == "cuda" and device != "GPU":
        raise InputError(f"{option}cuda: this project's CUDA kernels need a GPU; leave it at auto")
    try:
        return backend_named(name, amp)
    except DeviceError as problem:
        remedy = f"{problem.remedy}, or use backend {PREFERRED[device][1]}"
        raise InputError(f"{option}{name}: {problem}; {remedy}") from None
