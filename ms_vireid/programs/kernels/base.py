"""What the kernels share: functions with derivatives, loops that all cores share, tensors as arrays, products."""

import ctypes
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from itertools import count

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mint, ops
from mindspore.common import _Function

from ms_vireid.devices import runtime
from ms_vireid.devices.compiling import njit

__all__ = ["Function", "array", "empty", "f32", "matmul", "memory", "threaded"]

f32 = np.float32
STRICT = {"fastmath": {"contract"}, "error_model": "numpy"}
SUMS = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy"}  # in any order, so that they can be vectorised
ROWS = 64  # that one partial sum, in float64, is of: sums do not depend on the number of threads
THREADS = len(runtime.cores()) or os.cpu_count() or 1
_ALIGNED = 64  # bytes: a cache line, and one of AVX-512's registers
_WORTH = 1 << 14  # numbers from which another thread is worth waking
_MATMUL, _BATCH_MATMUL = ops.MatMul(), ops.BatchMatMul()
_DTYPES = {ms.float32: np.float32, ms.int32: np.int32}


# The name that MindSpore does not publish stands here alone. `_Function` is a function with its derivative in PyNative:
# a cell's `bprop`, which is published, sees nothing of what `construct` has kept.
Function = _Function


class Compiled(Function):
    """The number that a graph computes together with its gradients, and further values, which have none: to PyNative
    a function of `inputs`. graph(constant, *inputs) -> (number, *values), gradients.

    The graph holds what it was last given, and a tensor of PyNative all that it was made of, 0.4 GiB of a PMT; so it
    gets others in the same memory.
    """

    @staticmethod
    def forward(ctx, graph, constant, *inputs):
        values, gradients = graph(constant, *(Tensor.from_numpy(array(x)) for x in inputs))
        ctx.save_for_backward(*gradients)
        return values

    @staticmethod
    def backward(ctx, gradient, *_):
        return None, None, *(gradient * of_input for of_input in ctx.saved_tensors)


def empty(shape: tuple[int, ...]) -> Tensor:
    """A tensor within one of MindSpore's pool of memory: the system's takes as long to map as a kernel to fill.

    It begins at a multiple of 64 bytes, which the pool's own tensors miss by 16: so a ViT-B's products of 3,072 columns
    take three quarters of the time, its training step nine tenths.
    """
    size = math.prod(shape)
    pool = memory(mint.empty(size + _ALIGNED // 4, dtype=ms.float32))
    begin = -pool.ctypes.data % _ALIGNED // 4
    return Tensor.from_numpy(pool[begin : begin + size].reshape(shape))


def align(weight: Parameter) -> None:
    """Put a float32 weight where `empty` begins."""
    if weight.dtype == ms.float32 and weight.data_ptr() % _ALIGNED:
        aligned = empty(weight.shape)
        memory(aligned)[...] = weight.asnumpy()
        weight.set_data(aligned)


def array(x: Tensor) -> np.ndarray:
    """The tensor's numbers, to be read: its own memory, or a copy of what lies scattered in another's (a view)."""
    return memory(x) if x.is_contiguous() else x.asnumpy()


def memory(x: Tensor) -> np.ndarray:
    """The tensor's own memory, to be written.

    Raises:
        ValueError: it is a view of another's.
    """
    if not x.is_contiguous():
        raise ValueError(
            f"a tensor of shape {x.shape} and strides {x.stride()} is a view, which nothing can be written to"
        )
    return shaped(x, x.shape)


def shaped(x: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """The memory from where the tensor begins, in this shape."""
    content = (ctypes.c_char * (4 * x.size)).from_address(x.data_ptr())
    content.tensor = x  # which lives as long as the array then
    return np.ndarray(shape, _DTYPES[x.dtype], content)


def rows_of(x: Tensor) -> np.ndarray:
    """To be read: [..., C] as [rows, C]."""
    return array(x).reshape(-1, x.shape[-1])


def threaded(**options) -> Callable:
    """Decorator of a loop `for i in range(start, stop)` that Numba compiles, with these options, and all cores share.

    The function is written with `start` and `stop` before its arguments, and called with the number of turns in their
    place; it changes arrays. (Numba's own parallel loops compile five times as long.)
    """

    def decorate(function: Callable) -> Callable:
        compiled = njit(nogil=True, cache=True, **options)(function)

        @wraps(function)
        def run(turns: int, *arguments) -> None:
            numbers = sum(a.size for a in arguments if isinstance(a, np.ndarray))
            shares = max(1, min(THREADS, turns)) if numbers >= _WORTH else 1
            ends = [turns * i // shares for i in range(shares + 1)]
            others = [_pool().submit(compiled, *ends[i : i + 2], *arguments) for i in range(1, shares)]
            compiled(0, ends[1], *arguments)
            for other in others:
                other.result()

        return run

    return decorate


@cache
def _pool() -> ThreadPoolExecutor:
    """The threads besides the caller's, each with a core of its own where `runtime.bound_threads` leaves it one."""
    numbers = count(1)
    return ThreadPoolExecutor(THREADS - 1, "kernels", lambda: runtime.place(next(numbers)))


def matmul(a: np.ndarray, b: np.ndarray, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """a b of matrices float32 [..., M, K] and [..., K, N] -> [..., M, N], by MindSpore.

    Of arrays, as a tensor's `reshape` is a view, which MindSpore copies before a product: a tenth of a ResNet's step.
    By `Primitive`'s call: the operator's own keeps, in MindSpore 2.10, 512 bytes for each flag or number among its
    arguments at every call and for good (`CreateInputAddress` in its device_address_utils.cc, "persistent").
    """
    operator = _BATCH_MATMUL if a.ndim > 2 else _MATMUL
    return ops.Primitive.__call__(operator, Tensor.from_numpy(a), Tensor.from_numpy(b), transpose_a, transpose_b)


@njit(**STRICT)
def padded_plane(plane, border, height, width, relu):
    """A plane [H, W], or its ReLU, in zeros [height, width], `border` from above and from the left.

    Call it with no literal (np.int64(1) for 1): Numba would compile it once more for each."""
    out = np.zeros((height, width), np.float32)
    for r in range(plane.shape[0]):
        line = out[r + border, border:]
        for c in range(plane.shape[1]):
            line[c] = f32(0) if relu and plane[r, c] < f32(0) else plane[r, c]
    return out
