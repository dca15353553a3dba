"""MindSpore's own CUDA kernels on the stand-in GPU, each by an operator that launches it, against NumPy."""

import pytest

from tests.device.kernels import KERNELS


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_computes_what_numpy_computes(worker, name):
    # Each value is rounded once, to a type of 24 bits, or of 11 where float16 has a part.
    assert worker.do("kernel_error", name) <= (1e-3 if "float16" in name else 1e-6)
