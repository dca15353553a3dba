"""The device that MindSpore's tests run on: set up as the commands set it up, before any test imports mindspore."""

import gc
import os
from pathlib import Path

import pytest

from ms_vireid.command.errors import InputError
from ms_vireid.command.memory import available_memory
from ms_vireid.command.running import DEVICES
from ms_vireid.devices import runtime
from parity.memory import give_back
from parity.versions import torch_build
from tests import extensive

# As `set_up` does, but earlier: the conftest.py of a folder named on the command line imports mindspore before
# `pytest_configure`.
os.environ.setdefault("GLOG_v", "3")
# pytest-xdist's processes: on a core of its own each takes as long as alone on two. MindSpore's threads wait by
# yielding their core, which on a shared one hands it to another process.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    share = sorted(os.sched_getaffinity(0))[number :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
    os.sched_setaffinity(0, share or os.sched_getaffinity(0))
DEVICE_TESTS = Path(__file__).parent / "device"
WORKER_BYTES = 4 << 30  # the most that a process of tests takes, with those that it starts
# Whatever forks MindSpore's processes comes first: a fork takes ten times as long from one that has compiled graphs or
# held full-size models, whose memory is cleared in each child. Small files end it, so that all processes are busy to
# the end.
LADDER = ("test_ladder_trainings.py", "test_ladder.py", "test_ladder_models.py")
LAST = ("engine", "parity", *LADDER, "models", "losses")


def pytest_xdist_auto_num_workers():
    """One a core, if there is memory for them."""
    cores = len(runtime.cores()) or os.cpu_count() or 1
    return max(1, min(cores, available_memory() // WORKER_BYTES))


def part_of(text):
    """ "1/3" -> (1, 3)."""
    part, parts = map(int, text.split("/"))
    if not 0 <= part < parts:
        raise ValueError
    return part, parts


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also tests marked `extensive`, which take long")
    parser.addoption("--part", type=part_of, metavar="K/N", help="also a part of those tests, such as 0/3, 1/3 or 2/3")
    parser.addoption(
        "--fuzz", type=int, metavar="N", help="examples of each kind of input (default: 20 with --all, else 8)"
    )
    parser.addoption("--fuzz-seed", type=int, default=18, metavar="S", help="of what is drawn, and of moments")
    parser.addoption(
        "--edits",
        default="1",
        metavar="SEED",
        help="which edits of models, losses and optimisers are tried: drawn by a seed, or all, for hours (default: 1)",
    )
    parser.addoption(
        "--device",
        choices=[device for device in DEVICES if device != "auto"],
        default="CPU",
        help="CPU (default): all tests; another device: the tests of tests/device on it",
    )


def pytest_configure(config):
    try:
        config.device = runtime.set_up(config.getoption("--device"))
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    runtime.cap_convolutions()
    runtime.use_full_float32()


@pytest.fixture(scope="module", autouse=True)
def memory_given_back():
    """Give the memory of a module's models back to the system: the loader forks its workers, and a process of gigabytes
    takes long to fork."""
    yield
    give_back()


@pytest.hookimpl(tryfirst=True)  # before -m and -k choose
def pytest_collection_modifyitems(config, items):
    extensive.mark(items)
    config.unknown = [] if any("::" in argument for argument in config.args) else extensive.unknown(items)
    if not config.getoption("--all"):
        part, parts = config.getoption("--part") or (None, 1)
        marked = [item for item in items if item.get_closest_marker("extensive")]
        left_out = {item for number, item in enumerate(marked) if number % parts != part}
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: max((LAST.index(part) for part in item.path.parts if part in LAST), default=-1))


def pytest_collection_finish():
    """Keep all modules and tests from the garbage collector: going through them took a tenth of all time."""
    gc.collect()
    gc.freeze()


def pytest_report_header(config):
    return f"device: {config.device}; PyTorch {torch_build()}"


def pytest_ignore_collect(collection_path, config):
    """On devices other than the CPU, ignore all tests but the device's."""
    if config.getoption("--device") != "CPU" and collection_path.is_file():
        return True if DEVICE_TESTS not in collection_path.parents else None
    return None
