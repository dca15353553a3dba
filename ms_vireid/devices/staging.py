"""Copies to the device, from page-locked memory on a GPU and an Ascend. Imports mindspore: import it after
`runtime.set_up`."""

import ctypes
import time
import weakref
from collections import deque

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint

from ms_vireid.devices import gpu

_BUFFERS = 2  # the host prepares a batch while the device copies the one before
_FOR_ALL_CONTEXTS = 1  # cudaHostRegisterPortable
_POLL_S = 1e-4


class Staging:
    """Queues copies of arrays of one shape to the device. The arrays may change afterwards.

    A GPU and an Ascend copy from ordinary memory slowly, and only once all queued before is done, while the host waits:
    8 of 59 ms of AGW's step on an H100. From page-locked memory such a batch takes 0.6 ms, and the host goes on.
    """

    def __init__(self):
        self._ring: deque[_Buffer] = deque()

    def send(self, array: np.ndarray, rows: int | None = None) -> Tensor:
        """Queue a copy of float32 [n, ...] as [rows, ...], with zeros behind it; rows: default n."""
        shape = (rows or len(array), *array.shape[1:])
        if ms.get_context("device_target") != "GPU":
            return to_device(padded(array, shape))
        if not self._ring or self._ring[0].array.shape != shape:
            self._ring = deque(_Buffer(shape) for _ in range(_BUFFERS))
        self._ring.rotate()
        return self._ring[0].send(array)


def to_device(array: np.ndarray) -> Tensor:
    """Queue a copy of a C-contiguous float32 array to the device. A GPU reads the array: leave it unchanged until
    the copy is done. An ordinary tensor would be copied on the host as well, and to the device when first needed, with
    two waits for everything queued before."""
    target = ms.get_context("device_target")
    if target == "CPU":
        return Tensor(array)
    source = _page_locked(array) if target == "Ascend" else Tensor.from_numpy(array)
    return source.move_to(target, blocking=False)


def _page_locked(array: np.ndarray) -> Tensor:
    """Copy a float32 array to page-locked memory, which MindSpore on an Ascend keeps until the device has copied it: it
    has the stream call back (`AscendResManager::BaseCopy`). Buffers of our own would need an event of MindSpore's,
    after which all its graphs wait for streams. Without such memory the array is left where it is, and a copy waits.
    """
    try:
        locked = mint.empty(array.shape, dtype=ms.float32, device="CPU", pin_memory=True)
        np.copyto(locked.asnumpy(), array)
    except RuntimeError:
        return Tensor.from_numpy(array)
    return locked


class _Buffer:
    """Page-locked memory. Where CUDA refuses to lock it, copies are as slow as from ordinary memory."""

    def __init__(self, shape: tuple[int, ...]):
        self.copied = ms.runtime.Event()
        self.copied.record()  # has CUDA use this process's device
        self.array = np.zeros(shape, np.float32)
        cuda = ctypes.CDLL(str(gpu.loaded(gpu.RUNTIME)))
        size = ctypes.c_size_t(self.array.nbytes)
        if cuda.cudaHostRegister(_address(self.array), size, _FOR_ALL_CONTEXTS) == 0:
            weakref.finalize(self, _unlock, cuda, self.array, self.copied).atexit = False

    def send(self, array: np.ndarray) -> Tensor:
        while not self.copied.query():  # not synchronize(), in which no other Python thread runs
            time.sleep(_POLL_S)
        self.array[: len(array)] = array
        self.array[len(array) :] = 0
        tensor = to_device(self.array)
        self.copied.record()
        return tensor


def _unlock(cuda: ctypes.CDLL, array: np.ndarray, copied: ms.runtime.Event) -> None:
    copied.synchronize()
    cuda.cudaHostUnregister(_address(array))


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A C-contiguous array of this shape that begins with these rows and goes on with zeros."""
    if array.shape == shape:
        return np.ascontiguousarray(array, np.float32)
    whole = np.zeros(shape, np.float32)
    whole[: len(array)] = array
    return whole
