"""What the kernels share: where they are used, tensors as arrays, products."""

import ctypes
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn, ops
from mindspore._c_expression.amp import get_curr_amp_strategy
from numba import njit, prange

f32 = np.float32
STRICT = {"fastmath": {"contract"}, "error_model": "numpy"}
SUMS = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy"}  # in any order, so that they can be vectorised
PARALLEL = {"parallel": True, "cache": True}
ROWS = 64  # that one partial sum, in float64, is of: sums do not depend on the number of threads
_DTYPES = {ms.float32: np.float32, ms.int32: np.int32}


class Fused(nn.Cell):
    """A cell that takes `by_kernel`, with the arguments of `construct`, where a kernel can be used.

    PyNative calls a cell; a graph compiles its `construct`. So a graph, whose operators run on any device and can be
    exported, never holds a kernel. Nor has it a part that is watched by a hook: a kernel would pass over it.
    """

    def __call__(self, x: Tensor | tuple[Tensor, ...], *others: Tensor | None) -> Tensor | bool:
        full = (x[0] if isinstance(x, tuple) else x).dtype == ms.float32 and get_curr_amp_strategy() is None
        on_cpu = ms.get_context("device_target") == "CPU"
        if full and on_cpu and not any(_watched(cell) for _, cell in self.cells_and_names()):
            return self.by_kernel(x, *others)
        return super().__call__(x, *others)

    def by_kernel(self, x: Tensor | tuple[Tensor, ...], *others: Tensor | None) -> Tensor | bool:
        raise NotImplementedError


def _watched(cell: nn.Cell) -> bool:
    """Whether MindSpore or a hook has to see this cell called: hooks, or the outermost cell of a derivative."""
    hooks = cell._forward_pre_hook, cell._forward_hook, cell._backward_pre_hook, cell._backward_hook
    return cell.requires_grad or any(hooks)


def empty(shape: tuple[int, ...]) -> Tensor:
    """A tensor from MindSpore's pool of memory: the system's takes as long to map as a kernel to fill."""
    return mint.empty(shape, dtype=ms.float32)


def array(x: Tensor) -> np.ndarray:
    """The tensor's own memory, to be read or written; `asnumpy` would copy what `reshape` gave."""
    if not x.is_contiguous():
        return x.asnumpy()
    memory = (ctypes.c_char * (x.size * x.itemsize)).from_address(x.data_ptr())
    memory.tensor = x  # which lives as long as the array then
    return np.frombuffer(memory, _DTYPES[x.dtype]).reshape(x.shape)


def flat(x: Tensor) -> np.ndarray:
    return array(x).reshape(-1)


def rows_of(x: Tensor) -> np.ndarray:
    return array(x).reshape(-1, x.shape[-1])


@cache
def matmul(transpose_a: bool = False, transpose_b: bool = False) -> ops.MatMul:
    return ops.MatMul(transpose_a, transpose_b)


@cache
def batch_matmul(transpose_a: bool = False, transpose_b: bool = False) -> ops.BatchMatMul:
    return ops.BatchMatMul(transpose_a, transpose_b)


@njit(**PARALLEL)
def copy_to(source, target):
    """Arrays of one shape, either of which may be a transposition: MindSpore's own takes ten times as long."""
    for i in prange(target.shape[0]):
        target[i] = source[i]


@njit(**STRICT)
def padded_plane(plane, border, height, width, relu):
    """A plane [H, W], or its ReLU, in zeros [height, width], `border` from above and from the left."""
    out = np.zeros((height, width), np.float32)
    for r in range(plane.shape[0]):
        line = out[r + border, border:]
        for c in range(plane.shape[1]):
            line[c] = f32(0) if relu and plane[r, c] < f32(0) else plane[r, c]
    return out
