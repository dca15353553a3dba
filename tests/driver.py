"""A stand-in for NVIDIA's driver: C functions, by ctypes callbacks, so that every argument crosses a call of C."""

import ctypes
import os
from ctypes import CFUNCTYPE, POINTER, c_char, c_char_p, c_int, c_size_t, c_void_p

ERRORS = {100: b"CUDA_ERROR_NO_DEVICE", 803: b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}


class Driver:
    """As libcuda.so.1 of a machine with one kind of GPU.

    version: as cuDriverGetVersion gives it. init: what cuInit returns. count: of GPUs. name, capability: of each.
    """

    def __init__(self, version=12040, init=0, count=1, name="NVIDIA A100-SXM4-40GB", capability=(8, 0)):
        attributes = {75: capability[0], 76: capability[1]}
        self.cuInit = CFUNCTYPE(c_int, c_int)(lambda flags: init if flags == 0 else 1)
        self.cuDriverGetVersion = _writes_number(lambda: version)
        self.cuDeviceGetCount = _writes_number(lambda: count)
        self.cuDeviceGet = _writes_number(lambda ordinal: 10 + ordinal, 1)  # a handle that is not the ordinal
        self.cuDeviceGetAttribute = _writes_number(lambda which, device: attributes[which] + 100 * (device != 10), 2)
        self.cuDeviceGetName = CFUNCTYPE(c_int, POINTER(c_char), c_int, c_int)(_writer_of(name.encode()))
        self.cuGetErrorName = CFUNCTYPE(c_int, c_int, POINTER(c_char_p))(_name_error)


def _writes_number(value, arguments=0):
    def function(out, *given):
        out[0] = value(*given)
        return 0

    return CFUNCTYPE(c_int, POINTER(c_int), *[c_int] * arguments)(function)


def _writer_of(name):
    def function(out, size, device):
        if device != 10:
            return 101  # CUDA_ERROR_INVALID_DEVICE
        ctypes.memmove(out, name[: size - 1] + b"\0", min(size, len(name) + 1))
        return 0

    return function


def _name_error(status, out):
    if status not in ERRORS:
        return 1  # CUDA_ERROR_INVALID_VALUE, and nothing is written
    out[0] = ERRORS[status]
    return 0


class Loader:
    """In place of ctypes.CDLL: a driver, and CUDA's libraries of any path.

    driver: None for a machine without one. broken: sonames that do not load. status: what CUDA's runtime returns.
    cudnn_for: the CUDA that cuDNN is built for, as it gives it. loaded: paths and modes, in order.
    """

    def __init__(self, driver=None, broken=(), status=0, cudnn_for=11080):
        self.driver, self.broken, self.loaded = driver, broken, []
        self.cudnnGetCudartVersion = CFUNCTYPE(c_size_t)(lambda: cudnn_for)
        self.cudaGetDeviceCount = CFUNCTYPE(c_int, POINTER(c_int))(lambda out: status)
        self.said = ctypes.create_string_buffer(b"CUDA driver version is insufficient for CUDA runtime version")
        self.cudaGetErrorString = CFUNCTYPE(c_void_p, c_int)(lambda number: ctypes.addressof(self.said))

    def __call__(self, name, mode=ctypes.DEFAULT_MODE):
        if mode & os.RTLD_NOLOAD:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        if name == "libcuda.so.1":
            if self.driver is None:
                raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")
            return self.driver
        if name.rpartition("/")[2] in self.broken:
            raise OSError(f"{name}: file too short")
        self.loaded.append((name, mode))
        return self
