"""The operators called as MindSpore calls them, and arrays for them."""

import ctypes

import numpy as np
import pytest

from ms_vireid.backends.cuda import build, declarations

ABSENT = np.zeros(declarations.ABSENT_SHAPE, np.int8)
LIMIT = {"float32": 2e-6, "float16": 2e-3}  # float32 arithmetic; a result is rounded once
each_type = pytest.mark.parametrize("dtype", ["float32", "float16"])


class Kernels:
    """Calls them with arrays in the place of the device's memory, and kernels compiled for the host."""

    def __init__(self, stand_in, folder):
        libraries = stand_in.folder / "lib"
        ctypes.CDLL(str(libraries / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
        code = folder / "kernels.cubin"
        code.write_bytes(build.compiled(libraries / "libnvrtc.so.11.2", declarations.kernel_source(), "sm_80").code)
        self.path = folder / "launcher.so"
        self.path.write_bytes(build._compile_launcher())
        self.library = ctypes.CDLL(str(self.path))
        self.library.use_code(str(code).encode())

    def status(self, name, *arrays, **numbers):
        return self.call(name, numbers, [array.ctypes.data for array in arrays], arrays)

    def call(self, name, numbers, places, arrays):
        flat = declarations.operators()[name].flat(numbers)
        slot = self.library.declare(name.encode(), len(flat), (ctypes.c_double * len(flat))(*flat))
        assert slot >= 0
        addresses = (ctypes.c_void_p * len(arrays))(*places)
        ranks = (ctypes.c_int * len(arrays))(*(array.ndim for array in arrays))
        shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
        of_shapes = (ctypes.POINTER(ctypes.c_int64) * len(arrays))(
            *(ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)) for shape in shapes)
        )
        types = (ctypes.c_char_p * len(arrays))(*(array.dtype.name.encode() for array in arrays))
        function = getattr(self.library, f"operator_{slot:03}")
        return function(len(arrays), addresses, ranks, of_shapes, types, None, None)

    def run(self, name, *arrays, **numbers):
        """The last arrays are the outputs."""
        assert self.status(name, *arrays, **numbers) == 0

    def __call__(self, name, *inputs, **numbers):
        """Returns the outputs, or the only one, of the shapes and types that MindSpore is told; they are filled with
        what is no number before."""
        declared = declarations.operators()[name]
        shapes = declared.result_shapes([each.shape for each in inputs], numbers)
        types = declared.result_types([each.dtype.name for each in inputs], numbers, ABSENT.dtype.name)
        types = [{"float": "float32", "int": "int32"}.get(type_, type_) for type_ in types]
        outputs = [empty(*shape, dtype=dtype) for shape, dtype in zip(shapes, types, strict=True)]
        self.run(name, *inputs, *outputs, **numbers)
        return outputs if len(outputs) > 1 else outputs[0]


class KernelsOnGpu(Kernels):
    """Calls them on the GPU that MindSpore has set up, with copies of the arrays, which it copies back."""

    def __init__(self):
        build.use_kernels(declarations.kernel_source())
        self.path = build.launcher()
        self.library = ctypes.CDLL(str(self.path))
        self.driver = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        self._ask("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self._ask("cuCtxSetCurrent", context)

    def status(self, name, *arrays, **numbers):
        memory = [self._allocated(array) for array in arrays]
        places = [ctypes.c_void_p(start.value + offset) for start, offset in memory]
        for array, place in zip(arrays, places, strict=True):
            self._ask("cuMemcpyHtoD_v2", place, array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes))
        status = self.call(name, numbers, places, arrays)
        self._ask("cuCtxSynchronize")
        for array, place in zip(arrays, places, strict=True):
            self._ask("cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), place, ctypes.c_size_t(array.nbytes))
        for start, _ in memory:
            self._ask("cuMemFree_v2", start)
        return status

    def _allocated(self, array):
        """Memory, and the offset in it that is as far from a pack of 16 bytes as the array."""
        start, offset = ctypes.c_uint64(), array.ctypes.data % 16
        self._ask("cuMemAlloc_v2", ctypes.byref(start), ctypes.c_size_t(max(array.nbytes, 1) + offset))
        return start, offset

    def _ask(self, function, *arguments):
        assert getattr(self.driver, function)(*arguments) == 0, function


def aligned(array):
    """The same in memory that begins at a multiple of 64 bytes, as on a device."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def random(*shape, dtype="float32", seed=0):
    return aligned(np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype))


def empty(*shape, dtype="float32"):
    return aligned(np.full(shape, np.nan if dtype.startswith("float") else 99, dtype))


def assert_close(found, expected):
    error = np.abs(found.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-30)
    assert error <= LIMIT[found.dtype.name]
