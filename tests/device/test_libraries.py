"""What the stand-in GPU's cuBLAS and cuDNN refuse, and its NCCL, called as their manuals say. What they compute is in
test_kernels.py."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

FLOAT, HALF, INTEGER = 0, 2, 10  # of CUDA; the first two of cuDNN, too
BAD_PARAMETER = 3
ONE, ZERO = (np.array(value, np.float32) for value in (1, 0))


def handed(argument):
    """A Python value as C takes it."""
    match argument:
        case np.ndarray():
            return ctypes.c_void_p(argument.ctypes.data)
        case tuple():
            return (ctypes.c_int * len(argument))(*argument)
    return argument


class Library:
    """Functions of a library that return a status."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)

    def status(self, name, *arguments):
        return getattr(self.library, name)(*map(handed, arguments))

    def __call__(self, name, *arguments):
        assert self.status(name, *arguments) == 0, name

    def descriptor(self, kind, *settings, setter=""):
        """One of cuDNN's."""
        made = ctypes.c_void_p()
        self(f"cudnnCreate{kind}Descriptor", ctypes.byref(made))
        self(f"cudnnSet{kind}{setter}Descriptor", made, *settings)
        return made


def multiplied(stand_in, a, b, c, kind=FLOAT):
    """cuBLAS' status. Matrices [4, 5] and [5, 2] are stored column by column: [columns, leading dimension]."""
    cublas = Library(stand_in.folder / "lib" / "libcublas.so.11")
    matrices = [part for matrix in (a, b) for part in (matrix, kind, matrix.shape[1])]
    return cublas.status("cublasGemmEx", None, 0, 0, 4, 2, 5, ONE, *matrices, ZERO, c, kind, c.shape[1], 68, -1)


def test_a_product_is_written_over_what_is_not_a_number(stand_in):
    a, b = (np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in ((5, 4), (2, 5)))
    c = np.full((2, 4), np.nan, np.float32)
    assert multiplied(stand_in, a, b, c) == 0
    np.testing.assert_allclose(c, b @ a, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "kind", "status"),
    [((4, 5, 4), 0, 0), ((3, 5, 4), 0, 7), ((4, 4, 4), 0, 7), ((4, 5, 3), 0, 7), ((4, 5, 4), INTEGER, 15)],
)
def test_products_of_too_short_columns_or_of_integers_are_refused(stand_in, rows, kind, status):
    matrices = (np.zeros((columns, lead), np.float32) for columns, lead in zip((5, 2, 2), rows, strict=True))
    assert multiplied(stand_in, *matrices, kind=kind) == status


@pytest.fixture(scope="module")
def cudnn(stand_in):
    return Library(stand_in.folder / "lib" / "libcudnn.so.8")


def tensor(cudnn, shape, kind=FLOAT):
    return cudnn.descriptor("Tensor", 0, kind, *shape, setter="4d")


@pytest.mark.parametrize(
    ("inputs", "y", "kind", "status"),
    [
        (3, (2, 4, 4, 3), FLOAT, 0),
        (3, (1, 4, 4, 3), FLOAT, BAD_PARAMETER),
        (3, (2, 4, 4, 4), FLOAT, BAD_PARAMETER),
        (2, (2, 4, 4, 3), FLOAT, BAD_PARAMETER),
        (3, (2, 4, 4, 3), HALF, BAD_PARAMETER),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(cudnn, inputs, y, kind, status):
    """Of x [2, 3, 6, 5], which alone is of the type `kind`, by a filter for so many inputs."""
    weight = 4, inputs, 3, 3
    described = (tensor(cudnn, (2, 3, 6, 5), kind), cudnn.descriptor("Filter", FLOAT, 0, *weight, setter="4d"))
    values = [np.zeros(shape, np.float32) for shape in ((2, 3, 6, 5), weight, (2, 4, 4, 4))]
    convolution = cudnn.descriptor("Convolution", 2, (0, 0), (1, 1), (1, 1), 1, FLOAT, setter="Nd")
    given = ONE, described[0], values[0], described[1], values[1], convolution, 1, None, ctypes.c_size_t(0), ZERO
    assert cudnn.status("cudnnConvolutionForward", None, *given, tensor(cudnn, y), values[2]) == status


def test_pooling_to_a_size_that_does_not_fit_is_refused(cudnn):
    pooling = cudnn.descriptor("Pooling", 0, 0, 2, (2, 2), (0, 0), (2, 2), setter="Nd")
    x, y = np.zeros((1, 1, 4, 4), np.float32), np.zeros((1, 1, 3, 2), np.float32)
    given = ONE, tensor(cudnn, x.shape), x, ZERO, tensor(cudnn, y.shape), y
    assert cudnn.status("cudnnPoolingForward", None, pooling, *given) == BAD_PARAMETER


# NCCL, between threads instead of processes.


class UniqueId(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 128)]


@pytest.fixture(scope="module")
def nccl(stand_in):
    return Library(stand_in.folder / "lib" / "libnccl.so.2")


def each_of(number, nccl, work):
    """What `work(rank, communicator)` gives in each of so many that meet."""
    identity = UniqueId()
    nccl("ncclGetUniqueId", ctypes.byref(identity))

    def member(rank):
        communicator = ctypes.c_void_p()
        nccl("ncclCommInitRank", ctypes.byref(communicator), number, identity, rank)
        result = work(rank, communicator)
        nccl("ncclCommAbort", communicator)
        return result

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(member, range(number)))


NCCL_TYPES = {"float32": 7, "float16": 6, "int32": 2}


@pytest.mark.parametrize("dtype", NCCL_TYPES)
@pytest.mark.parametrize("number", range(5))
def test_all_get_the_reduction_of_all(nccl, number, dtype):
    size = 400_000  # more than is handed over at once
    given = [np.random.default_rng(rank).integers(1, 9, size).astype(dtype) for rank in range(3)]
    expected = (np.sum, np.prod, np.max, np.min, np.mean)[number](np.float64(given), axis=0)

    def work(rank, communicator):
        values = given[rank].copy()
        nccl("ncclAllReduce", values, values, ctypes.c_size_t(size), NCCL_TYPES[dtype], number, communicator, None)
        return values

    for found in each_of(3, nccl, work):
        assert np.array_equal(found, expected.astype(dtype))


def test_all_get_what_one_has(nccl):
    def work(rank, communicator):
        values = np.full(5, rank, np.float32)
        nccl("ncclBroadcast", values, values, ctypes.c_size_t(5), NCCL_TYPES["float32"], 1, communicator, None)
        return values

    assert np.array_equal(each_of(2, nccl, work), np.ones((2, 5)))


def test_all_get_what_each_has(nccl):
    def work(rank, communicator):
        own, all_values = np.full(300_000, rank, np.float32), np.empty((2, 300_000), np.float32)
        nccl("ncclAllGather", own, all_values, ctypes.c_size_t(own.size), NCCL_TYPES["float32"], communicator, None)
        return all_values

    for found in each_of(2, nccl, work):
        assert np.array_equal(found, np.repeat([[0.0], [1.0]], 300_000, axis=1))


def test_each_gets_its_part_of_the_sum(nccl):
    def work(rank, communicator):
        given, own = np.arange(6, dtype=np.float32), np.empty(3, np.float32)
        nccl("ncclReduceScatter", given, own, ctypes.c_size_t(3), NCCL_TYPES["float32"], 0, communicator, None)
        return own

    assert np.array_equal(each_of(2, nccl, work), [[0, 2, 4], [6, 8, 10]])
