import pytest

from .commands import Commands
from .good import write_good


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=30, metavar="N", help="examples of each kind of file that is mutated")


@pytest.fixture(scope="session")
def commands():
    server = Commands()
    yield server
    server.close()


@pytest.fixture(scope="session")
def good(commands, tmp_path_factory):
    return write_good(tmp_path_factory.mktemp("good"), commands)
