"""Pictures on their way to a device."""

import sys

import numpy as np

from ms_vireid.devices.staging import Staging, padded
from tests.device.worker import Worker

SIZES, ROWS = [5, 2, 4, 1], 5
ARRIVED = [[float(number)] * size + [0.0] * (ROWS - size) for number, size in enumerate(SIZES, 1)]


def test_a_gpu_copies_from_page_locked_memory_and_the_arrays_may_change(worker):
    rows, called = worker.do("staged", SIZES, ROWS)
    assert rows == ARRIVED
    copies = {"cudaMemcpyAsync\tuint8[60] to the device from pinned memory": len(SIZES)}
    assert called == copies | {"cudaHostRegister": 2, "cudaHostUnregister": 2}


def test_an_ascend_copies_from_page_locked_memory_without_waiting(ascend_worker):
    for sizes, arrived in ((SIZES, ARRIVED), ([ROWS] * 4, [[float(number)] * ROWS for number in range(1, 5)])):
        rows, called = ascend_worker.do("staged", sizes, ROWS)
        assert rows == arrived
        called.pop("aclrtMallocHost", None)  # of MindSpore's pool, once
        assert called == {"aclrtMemcpyAsync": len(sizes)}


def test_page_locked_memory_that_is_free_before_it_is_copied_is_noticed(ascend_worker):
    assert ascend_worker.do("staged", SIZES, ROWS, "callback")[0] != ARRIVED
    assert ascend_worker.do("staged", SIZES, ROWS)[0] == ARRIVED


def test_an_ascend_without_page_locked_memory_waits_for_the_copies(ascend, tmp_path):
    worker = Worker(ascend, tmp_path)
    rows, called = worker.do("staged", SIZES, ROWS, "lock")
    worker.close()
    assert rows == ARRIVED
    assert "aclrtMemcpyAsync" not in called


def test_a_process_may_end_at_once_behind_a_result(ascend):
    # On an Ascend a thread of MindSpore's gives host memory back, which takes a running interpreter.
    backend = """
import numpy as np
from mindspore import Tensor
from ms_vireid.devices import runtime
runtime.set_up("Ascend")
assert Tensor.from_numpy(np.ones(3, np.float32)).move_to("Ascend", blocking=False).asnumpy().sum() == 3
"""
    done = ascend.run([sys.executable, "-c", backend], 60.0)
    assert done.returncode == 0, done.stderr


def test_a_cpu_copies_at_once():
    staging = Staging()
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    sent = staging.send(array)
    expected = array.copy()
    array[:] = -1
    np.testing.assert_array_equal(sent.asnumpy(), expected)
    np.testing.assert_array_equal(staging.send(expected[:2], 4).asnumpy(), [*expected[:2], [0] * 3, [0] * 3])


def test_rows_are_padded_to_a_contiguous_array():
    array = np.arange(24, dtype=np.float64).reshape(3, 2, 4).transpose(1, 0, 2)
    whole = padded(array, array.shape)
    assert whole.flags.c_contiguous
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(padded(array, (5, 3, 4))[2:], np.zeros((3, 3, 4)))
