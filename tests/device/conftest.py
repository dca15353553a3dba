"""The stand-ins, built once for what they are made of, and processes on them."""

import os

import pytest

from parity.stand_in import build, missing
from tests.device.cuda_kernels import Kernels, KernelsOnGpu
from tests.device.worker import Worker

REQUIRED = "MS_VIREID_REQUIRE_STAND_IN"  # set: the tests fail where a stand-in cannot be built


@pytest.fixture(scope="session")
def stand_in(request):
    """The stand-in GPU."""
    return _stand_in(request, "GPU")


@pytest.fixture(scope="session")
def ascend(request):
    return _stand_in(request, "Ascend")


def _stand_in(request, device):
    if request.config.getoption("--device") != "CPU":
        pytest.skip("a real device shows more")
    return build_or_skip(device)


def build_or_skip(device):
    if reason := missing(device):
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)
    return build(device)


@pytest.fixture(scope="package")
def worker(stand_in, tmp_path_factory):
    """A process on the stand-in GPU."""
    yield from _worker(stand_in, tmp_path_factory)


@pytest.fixture(autouse=True, scope="module")
def _all_cores():
    """MindSpore has as many threads as on a user's host, not as on the one core of tests/conftest.py."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count()))
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def kernels(request, tmp_path_factory):
    """What launches the CUDA kernels: on the GPU of --device GPU, else on the stand-in."""
    if request.config.getoption("--device") == "GPU":
        return KernelsOnGpu()
    return Kernels(request.getfixturevalue("stand_in"), tmp_path_factory.mktemp("numba"))


@pytest.fixture(scope="package")
def counting_worker(stand_in, tmp_path_factory):
    """The same, in which nothing is computed: for what is about operators, types, shapes and counts alone."""
    yield from _worker(stand_in, tmp_path_factory, values=False)


@pytest.fixture(scope="package")
def pynative_worker(stand_in, tmp_path_factory):
    """The same for PyNative, whose threads the tests do not need."""
    yield from _worker(stand_in, tmp_path_factory, values=False, blocking=True)


@pytest.fixture(scope="package")
def ascend_worker(ascend, tmp_path_factory):
    """A process on the stand-in Ascend."""
    yield from _worker(ascend, tmp_path_factory)


@pytest.fixture(params=["worker", "ascend_worker"])
def either(request):
    """A process on each stand-in."""
    return request.getfixturevalue(request.param)


def _worker(stand_in, tmp_path_factory, **options):
    """It ends with this folder's tests, as it keeps gigabytes that the ladder of full-size models needs."""
    worker = Worker(stand_in, tmp_path_factory.mktemp("worker"), **options)
    yield worker
    worker.close()
