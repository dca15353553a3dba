"""Another CUDA in the process, such as PyTorch's: MindSpore's libraries are taken by their exact names, and PyTorch
stays on the CPU."""

import sys

import pytest

from parity.stand_in.toolchain import generate, link
from tests.device.test_planted_in_cuda import BLOCK
from tests.device.test_staging import ARRIVED, ROWS, SIZES
from tests.device.worker import Worker

# None of those that PyTorch itself needs.
OTHERS = ("libcudart.so.12", "libcudart.so.10.2", "libnvrtc.so.12", "libnvrtc.so.11.9")
FUNCTIONS = ("cudaHostRegister", "cudaHostUnregister", "nvrtcCreateProgram", "nvrtcCompileProgram")
USES_TORCH = """
import sys
from ms_vireid.devices import runtime
if sys.argv[1] == "mindspore":
    runtime.set_up("GPU")
import torch
runtime.set_up("GPU")
weight = torch.ones(3, requires_grad=True)
(weight * 2).sum().backward()
print(torch.cuda.is_available(), torch.cuda.device_count(), weight.grad.tolist())
"""


@pytest.fixture
def crowded(stand_in, tmp_path):
    """A process on the stand-in with libraries of other CUDAs, each of whose functions ends it."""
    made = generate([f"void {name}(void) {{ abort(); }}" for name in FUNCTIONS], tmp_path / "functions.c")
    for name in OTHERS:
        link(tmp_path / name, [made])
    worker = Worker(stand_in, tmp_path)
    worker.do("load_libraries", [str(tmp_path / name) for name in OTHERS])
    yield worker
    worker.close()


def test_libraries_of_another_cuda_are_not_taken_for_mindspores(crowded):
    rows, called = crowded.do("staged", SIZES, ROWS)
    assert rows == ARRIVED
    assert called["cudaHostRegister"] == 2
    assert crowded.do("run_case", BLOCK, "cuda") == []


@pytest.mark.parametrize("first", ["torch", "mindspore"])
def test_pytorch_does_not_ask_the_stand_ins_driver(stand_in, tmp_path, first):
    done = stand_in.run([sys.executable, "-c", USES_TORCH, first], 240.0, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "False 0 [2.0, 2.0, 2.0]\n")
