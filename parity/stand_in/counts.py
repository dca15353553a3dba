"""What this process, which runs on the stand-in, has asked of the GPU so far."""

import ctypes
import re
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from ms_vireid.gpu import PACKAGES

CUDA_OPS = "libcuda_ops.so.11"  # MindSpore's own kernels
SONAMES = ("libcuda.so.1", *PACKAGES, CUDA_OPS)

COPIES = {"cudaMemcpy", "cudaMemcpyAsync"}
WAITS = {"cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy", "cudaStreamSynchronize", "cuStreamSynchronize"}
ALLOCATIONS = {"cudaHostAlloc", "cudaMalloc"}
# Functions that put no work on the device.
_BOOKKEEPING = re.compile(
    r"cuda(?!Memset)|cu(Device|Module|Stream)|cu[a-z]\w+(Create|Destroy|Get|Set|Restore|Plan|_bufferSize)|nvrtc"
    r"|\w*RoundUpPower2"
)
_COUNTER = np.dtype([("name", np.uintp), ("calls", np.int64)])  # as in stand_in.h


@dataclass(frozen=True)
class Counts:
    """Of one process.

    launches: calls that put a computation on a stream, each at least one kernel on a real GPU: MindSpore's own kernels,
        products, convolutions and other computing calls of cuBLAS, cuDNN and the like, and memsets.
    copies: cudaMemcpy and cudaMemcpyAsync, in any direction. waits: of the host for the device, for which the device
        then waits: synchronisations of a stream, an event or the device, and cudaMemcpy, which is not asynchronous.
    allocations: of device memory (cudaMalloc) and of pinned host memory (cudaHostAlloc).
    """

    launches: int
    copies: int
    waits: int
    allocations: int

    def __sub__(self, earlier: "Counts") -> "Counts":
        return Counts(*(now - before for now, before in zip(astuple(self), astuple(earlier), strict=True)))


def counts() -> Counts:
    """Raises RuntimeError: this process does not run on the stand-in."""
    calls = functions()
    return Counts(
        launches=sum(number for name, number in calls.items() if is_launch(name)),
        copies=sum(calls[name] for name in COPIES),
        waits=sum(calls[name] for name in WAITS),
        allocations=sum(calls[name] for name in ALLOCATIONS),
    )


def functions() -> Counter[str]:
    """Calls by the function's name: CUDA's as in its manuals, MindSpore's kernels as "Cast<float, bool>".

    Raises:
        RuntimeError: this process does not run on the stand-in.
    """
    calls: Counter[str] = Counter()
    for soname in SONAMES:
        try:
            counters_of = ctypes.CDLL(soname).stand_in_counters
        except (OSError, AttributeError):
            raise RuntimeError(
                f"{soname} is not the stand-in's; run by python -m parity.stand_in COMMAND ..."
            ) from None
        counters_of.restype = ctypes.c_void_p
        number = ctypes.c_long()
        first = counters_of(ctypes.byref(number))
        if number.value:
            content = (ctypes.c_char * (number.value * _COUNTER.itemsize)).from_address(first)
            counters = np.frombuffer(content, _COUNTER)
            for name, made in counters[counters["calls"] > 0].tolist():
                calls[ctypes.string_at(name).decode()] += made
    return calls


def read_log(path: Path) -> Counter[str]:
    """The same of all processes that have ended, from the log that `StandIn.environment` sets."""
    calls: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        made, _, name = line.partition(" ")
        calls[name] += int(made)
    return calls


def is_launch(function: str) -> bool:
    """Whether a function of that name puts a computation on the device."""
    return not _BOOKKEEPING.match(function)
