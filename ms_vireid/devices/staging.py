"""Copies of pictures to the device, through page-locked memory on a GPU. Imports mindspore: import it after
`runtime.set_up`."""

import ctypes
import time
import weakref
from collections import deque
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ms_vireid.devices import gpu, runtime

_BUFFERS = 2  # the host prepares a batch while the device copies the one before
_FOR_ALL_CONTEXTS = 1  # cudaHostRegisterPortable
_POLL_S = 1e-4


class Sent(NamedTuple):
    """A tensor on the device, and the array that the device may still read: keep it until results computed from the
    tensor have been read. None on a GPU and on a CPU."""

    tensor: Tensor
    array: np.ndarray | None


class Staging:
    """Queues copies of arrays of one shape to the device. The arrays may change afterwards.

    A GPU copies from ordinary memory at a fifth of the speed, and only once all queued before is done, while the host
    waits: 8 of 59 ms of AGW's step on an H100. From page-locked memory such a batch takes 0.6 ms, and the host goes on.
    """

    def __init__(self):
        self._ring: deque[_Buffer] = deque()

    def send(self, array: np.ndarray, rows: int | None = None) -> Sent:
        """Queue a copy of float32 [n, ...] as [rows, ...], with zeros behind it; rows: default n."""
        shape = (rows or len(array), *array.shape[1:])
        target = ms.get_context("device_target")
        if target == "CPU":
            return Sent(runtime.to_device(padded(array, shape)), None)
        if target == "Ascend":  # no buffers: once there is an event of MindSpore's, all its graphs wait for streams
            whole = padded(array, shape).copy()
            return Sent(runtime.to_device(whole), whole)
        if not self._ring or self._ring[0].array.shape != shape:
            self._ring = deque(_Buffer(shape) for _ in range(_BUFFERS))
        self._ring.rotate()
        return Sent(self._ring[0].send(array), None)


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
        tensor = runtime.to_device(self.array)
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
