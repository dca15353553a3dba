"""Data-parallel training on two stand-in devices, which MindSpore's own collectives reach by NCCL or HCCL."""

import pytest

from ms_vireid import train
from parity.stand_in import read_log
from tests.test_distributed import ONE, PMT, alone, assert_alike, together, weights_of

STEPS = 4  # of two epochs
SHORT = [*PMT, f"train.iterations={STEPS // 2}", "train.checkpoint_steps=1"]
SUM_OF_ALL = {"GPU": "ncclAllReduce", "Ascend": "HcclAllReduce"}


@pytest.fixture(scope="module", params=["stand_in", "ascend"])
def two(request, tmp_path_factory):
    """The device, a folder with what came of two processes on it (work/run; the functions called, in calls), and what
    they printed. The GPU is one whose driver translates."""
    stand_in = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        newer = {"STAND_IN_CAPABILITY": "9", "CUDA_CACHE_PATH": str(folder / "cache")}
        for name, value in {**stand_in.environment(folder / "calls"), **newer}.items():
            patch.setenv(name, value)
        printed = together(folder, *SHORT, device=stand_in.device).lines
    return stand_in.device, folder, printed


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
