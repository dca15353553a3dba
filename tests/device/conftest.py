"""The stand-in GPU, built once a test run."""

import os

import pytest

from parity.stand_in import build, missing
from tests.device.worker import Worker

REQUIRED = "MS_VIREID_REQUIRE_STAND_IN"  # set: the tests fail where the stand-in cannot be built


@pytest.fixture(scope="session")
def stand_in(request, tmp_path_factory):
    if request.config.getoption("--device") != "CPU":
        pytest.skip("a real device shows more")
    return build_or_skip(tmp_path_factory)


def build_or_skip(tmp_path_factory):
    if reason := missing():
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)
    return build(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture(scope="session")
def worker(stand_in, tmp_path_factory):
    """A process on the stand-in."""
    worker = Worker(stand_in, tmp_path_factory.mktemp("worker"))
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def blocking_worker(stand_in, tmp_path_factory):
    """The same for PyNative, whose threads the tests do not need."""
    worker = Worker(stand_in, tmp_path_factory.mktemp("worker"), blocking=True)
    yield worker
    worker.close()
