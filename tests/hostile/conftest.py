import pytest

from .commands import Commands
from .good import write_good


@pytest.fixture(scope="session")
def commands():
    server = Commands()
    yield server
    server.close()


@pytest.fixture(scope="session")
def good(commands, tmp_path_factory):
    return write_good(tmp_path_factory.mktemp("good"), commands)
