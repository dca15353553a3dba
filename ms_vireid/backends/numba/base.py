"""Shared by the kernels: functions with gradients, threaded loops, tensors as arrays, matrix products."""

import ctypes
import math
import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, wraps
from queue import SimpleQueue
from threading import Thread

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mint, ops

# Not published. A cell's `bprop`, which is, cannot see what `construct` saved.
from mindspore.common import _Function
from mindspore.graph.api import _pynative_executor

from ms_vireid.command.errors import InputError
from ms_vireid.devices import runtime
from ms_vireid.files.kernel_cache import njit

f32 = np.float32
STRICT = {"fastmath": {"contract"}, "error_model": "numpy"}
SUMS = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy"}  # any order, so that sums are vectorised
ROWS = 64  # rows per partial sum, in float64: sums do not depend on the number of threads
THREADS = len(runtime.cores()) or os.cpu_count() or 1
_ALIGNED = 64  # bytes: a cache line, or an AVX-512 register
_WORTH = 1 << 14  # elements from which threads pay
_POOLED = 1 << 20  # elements from which the pool pays
_MATMUL, _BATCH_MATMUL = ops.MatMul(), ops.BatchMatMul()
_DTYPES = {ms.float32: np.float32, ms.int32: np.int32}


class Function(_Function):
    """A function of PyNative whose gradient kernels compute, and which has no second one.

    Raises InputError in `backward` where that would be differentiated: MindSpore would take it for a constant.
    """

    def __init_subclass__(cls) -> None:
        backward = cls.backward

        def backward_once(ctx, *gradients):
            if _pynative_executor.grad_flag():
                raise InputError(f"{cls.__name__}: numba has no gradients of gradients; give train.backend=eager")
            return backward(ctx, *gradients)

        cls.backward = staticmethod(backward_once)


class Compiled(Function):
    """A graph as a PyNative function of `inputs`: it computes a scalar with its gradients, and values.
    graph(constant, *inputs) -> (scalar, *values), gradients. Raises InputError in `backward` for gradients of values.

    The graph keeps its last inputs alive, and a PyNative tensor all that it was computed from, 0.4 GiB of a PMT; so the
    graph gets new tensors in the same memory.
    """

    @staticmethod
    def forward(ctx, name, graph, constant, *inputs):
        inputs = [Tensor.from_numpy(array(x)) for x in inputs]
        with runtime.own_core():
            values, gradients = graph(constant, *inputs)
            values[0].asnumpy()  # waits
        ctx.save_for_backward(*gradients)
        ctx.name = name
        return values

    @staticmethod
    def backward(ctx, gradient, *of_values):
        if any(weight.asnumpy().any() for weight in of_values):
            raise InputError(f"{ctx.name}: numba has the gradient of its sum alone; give train.backend=eager")
        return None, None, None, *(gradient * grad_input for grad_input in ctx.saved_tensors)


def room(shape: tuple[int, ...]) -> np.ndarray:
    """Allocate an uninitialised float32 array, a large one from MindSpore's memory pool, as the system takes as long to
    map memory as a kernel to fill it; a small one from NumPy, which takes a tenth of the time of a call."""
    return np.empty(shape, np.float32) if math.prod(shape) < _POOLED else _pooled(shape)


def empty(shape: tuple[int, ...]) -> Tensor:
    """Allocate an uninitialised float32 tensor in MindSpore's memory pool, aligned to 64 bytes.

    The pool's own tensors miss the alignment by 16 bytes; with it a ViT-B's products of 3,072 columns take three
    quarters of the time, its training step nine tenths.
    """
    return Tensor.from_numpy(_pooled(shape))


def _pooled(shape: tuple[int, ...]) -> np.ndarray:
    x = mint.empty(math.prod(shape) + _ALIGNED // 4, dtype=ms.float32)
    return shaped(x, shape, -x.data_ptr() % _ALIGNED)


def align(weight: Parameter) -> None:
    """Move a float32 weight into aligned memory."""
    if weight.dtype == ms.float32 and weight.data_ptr() % _ALIGNED:
        aligned = empty(weight.shape)
        memory(aligned)[...] = weight.asnumpy()
        weight.set_data(aligned)


def array(x: Tensor) -> np.ndarray:
    """The tensor as an array to read: its memory, or a copy if it is not contiguous."""
    return memory(x) if x.is_contiguous() else x.asnumpy()


def memory(x: Tensor) -> np.ndarray:
    """The tensor's memory as an array to write.

    Raises:
        ValueError: it is not contiguous.
    """
    if not x.is_contiguous():
        problem = f"a tensor of shape {x.shape} and strides {x.stride()} is a view"
        raise ValueError(f"{problem}, which cannot be written to")
    return shaped(x, x.shape)


def shaped(x: Tensor, shape: tuple[int, ...], skipped: int = 0) -> np.ndarray:
    """The memory that starts some bytes after the tensor's first element, in this shape."""
    content = (ctypes.c_char * (4 * math.prod(shape))).from_address(x.data_ptr() + skipped)
    content.tensor = x  # keeps it alive
    return np.ndarray(shape, _DTYPES[x.dtype], content)


def rows_of(x: Tensor) -> np.ndarray:
    """[..., C] as [rows, C], to read."""
    return array(x).reshape(-1, x.shape[-1])


def threaded(**options) -> Callable:
    """Decorate a loop `for i in range(start, stop)`: Numba compiles it with these options, and all cores share it.

    Write the function with `start` and `stop` as its first parameters, and call it with the number of iterations in
    their place; it writes into its arrays. (Numba's own parallel loops take five times as long to compile.)
    """

    def decorate(function: Callable) -> Callable:
        compiled = njit(nogil=True, cache=True, **options)(function)

        @wraps(function)
        def run(iterations: int, *arguments) -> None:
            elements = sum(a.size for a in arguments if isinstance(a, np.ndarray))
            shares = max(1, min(THREADS, iterations)) if elements >= _WORTH else 1
            ends = [iterations * i // shares for i in range(shares + 1)]
            others = [_submit(compiled, *ends[i : i + 2], *arguments) for i in range(1, shares)]
            compiled(0, ends[1], *arguments)
            for other in others:
                other.result()

        return run

    return decorate


def _submit(function: Callable, *arguments) -> Future:
    """Have another thread call a function. Unlike a pool's, these threads also work for threads that outlive the main
    one, as a server's do."""
    future = Future()
    _tasks().put((future, function, arguments))
    return future


@cache
def _tasks() -> SimpleQueue:
    """What is to be done by the threads besides the caller's."""
    tasks = SimpleQueue()
    for number in range(1, THREADS):
        Thread(target=_work, args=(tasks,), name=f"kernels {number}", daemon=True).start()
    return tasks


def _work(tasks: SimpleQueue) -> None:
    runtime.unbind()
    while True:
        future, function, arguments = tasks.get()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)


def matmul(a: np.ndarray, b: np.ndarray, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """Multiply matrices float32 [..., M, K] and [..., K, N] -> [..., M, N] by MindSpore's operator.

    Takes arrays, as a tensor's `reshape` is a view, which MindSpore copies before a product: a tenth of a ResNet's
    step. Calls `Primitive.__call__`, as the operator's own call leaks, in MindSpore 2.10, 512 bytes for each flag or
    number among its arguments (`CreateInputAddress` in its device_address_utils.cc, "persistent").
    """
    operator = _BATCH_MATMUL if a.ndim > 2 else _MATMUL
    return ops.Primitive.__call__(operator, Tensor.from_numpy(a), Tensor.from_numpy(b), transpose_a, transpose_b)


@njit(**STRICT)
def padded_plane(plane, border, height, width, relu):
    """Pad a plane [H, W], or its ReLU, with zeros to [height, width]: `border` above and to the left.

    Pass no literals (np.int64(1) for 1): Numba would compile another version for each."""
    out = np.zeros((height, width), np.float32)
    for r in range(plane.shape[0]):
        line = out[r + border, border:]
        for c in range(plane.shape[1]):
            line[c] = f32(0) if relu and plane[r, c] < f32(0) else plane[r, c]
    return out
