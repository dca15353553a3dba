"""Data-parallel training on two stand-in devices, which MindSpore's own collectives reach by NCCL or HCCL."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from ms_vireid import train
from parity.stand_in import read_log
from tests.test_distributed import ONE, PMT, alone, assert_alike, together, weights_of

STEPS = 4  # of two epochs
SHORT = [*PMT, f"train.iterations={STEPS // 2}", "train.checkpoint_steps=1"]
SUM_OF_ALL = {"GPU": "ncclAllReduce", "Ascend": "HcclAllReduce"}


def trained(stand_in, folder):
    """What two processes on it printed. The GPU is one whose driver translates."""
    newer = {"STAND_IN_CAPABILITY": "9", "CUDA_CACHE_PATH": str(folder / "cache")}
    variables = stand_in.environment(folder / "calls") | newer
    return together(folder, *SHORT, device=stand_in.device, variables=variables).lines


@pytest.fixture(scope="module")
def both(stand_in, ascend, tmp_path_factory):
    """For each device its folder and what was printed. At once, as a launch waits a third of its time."""
    folders = {one: tmp_path_factory.mktemp("two") for one in (stand_in, ascend)}
    with ThreadPoolExecutor(len(folders)) as pool:
        begun = {one: pool.submit(trained, one, folder) for one, folder in folders.items()}
    return {one.device: (folder, begun[one]) for one, folder in folders.items()}


@pytest.fixture(params=SUM_OF_ALL)
def two(request, both):
    """The device, a folder with what came of two processes on it (work/run; the functions called, in calls), and what
    they printed."""
    folder, begun = both[request.param]
    return request.param, folder, begun.result()


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    """The same in one process, on the batches of both."""
    folder = tmp_path_factory.mktemp("one")
    alone(folder, train, "--output", "run", *ONE, *SHORT)
    return weights_of(folder / "run")


def test_two_processes_train_as_one_of_the_cpu_on_the_union_batch(two, on_cpu):
    # The gradients' sums are rounded in another order.
    assert_alike(weights_of(two[1] / "work/run"), on_cpu, 1e-5)


def test_each_process_asks_for_sums_of_all(two):
    device, folder, _ = two
    assert read_log(folder / "calls")[SUM_OF_ALL[device]] >= 2 * STEPS


def test_one_of_them_says_that_the_driver_translates(two):
    device, folder, printed = two
    said = [line for line in printed if str(folder / "cache") in line]
    assert len(said) == (device == "GPU"), printed
